/* bfloat16 as 16-bit whole numbers (conv_bf16_int16_avx512vnni.c): vpdpwssd. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 16 };

typedef __m512i acc_t;
typedef int32_t sum_t;
typedef __m512i operand_t;
typedef int16_t value_t;

#define LEFT 1
#define RIGHT(odd) (int16_t)(odd)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = _mm512_dpwssd_epi32(*acc, *x, w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_bf16_avx512vnni = {
    "vpdpwssd zmm", TS_PEAK, TS_BF16, TS_CPU_AVX512 | TS_CPU_AVX512VNNI, .peak = {CHAINS * 32.0, run},
};
