/* vfmadd231ps, 16 floats at a time. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 16 };

typedef __m512 acc_t;
typedef __m512 operand_t;

TS_INLINE acc_t start(int chain)
{
    return _mm512_set1_ps((float)chain);
}

TS_INLINE operand_t left(void)
{
    return _mm512_set1_ps(0.5f);
}

TS_INLINE operand_t right(int odd)
{
    return _mm512_set1_ps(odd ? 1.0f : 0.5f);
}

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = _mm512_fmadd_ps(*x, w, *acc);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_f32_avx512 = {
    "vfmadd231ps zmm", TS_PEAK, TS_F32, TS_CPU_AVX512, .peak = {CHAINS * 16.0, run},
};
