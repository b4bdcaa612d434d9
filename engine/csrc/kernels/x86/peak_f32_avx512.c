/* vfmadd231ps, 16 floats at a time. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 16 };

typedef __m512 acc_t;
typedef float sum_t;
typedef __m512 operand_t;
typedef float value_t;

#define LEFT 0.5f
#define RIGHT(odd) ((odd) ? 1.0f : 0.5f)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = _mm512_fmadd_ps(*x, w, *acc);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_f32_avx512 = {
    "vfmadd231ps zmm", TS_PEAK, TS_F32, TS_CPU_AVX512, .peak = {CHAINS * 16.0, run},
};
