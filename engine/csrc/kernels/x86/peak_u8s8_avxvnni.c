/* vpdpbusd in its 256-bit VEX form. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 12 };

typedef __m256i acc_t;
typedef int32_t sum_t;
typedef __m256i operand_t;
typedef int8_t value_t;

#define LEFT 1
#define RIGHT(odd) (int8_t)(odd)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = _mm256_dpbusd_avx_epi32(*acc, *x, w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_u8s8_avxvnni = {
    "vpdpbusd ymm", TS_PEAK, TS_U8, TS_CPU_AVX2 | TS_CPU_AVXVNNI, .peak = {CHAINS * 32.0, run},
};
