/* vpdpbusd. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 16 };

typedef __m512i acc_t;
typedef int32_t sum_t;
typedef __m512i operand_t;
typedef int8_t value_t;

#define LEFT 1
#define RIGHT(odd) (int8_t)(odd)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = _mm512_dpbusd_epi32(*acc, *x, w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_u8s8_avx512vnni = {
    "vpdpbusd zmm", TS_PEAK, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI, .peak = {CHAINS * 64.0, run},
};
