/* bfloat16 as 16-bit whole numbers (conv_bf16_int16_avx2.c): vpmaddwd and vpaddd. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 12 };

typedef __m256i acc_t;
typedef int32_t sum_t;
typedef __m256i operand_t;
typedef int16_t value_t;

#define LEFT 1
#define RIGHT(odd) (int16_t)(odd)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    TS_KEEP(*x); /* or the same product would be computed once for all accumulators */
    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(*x, w));
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_bf16_avx2 = {
    "vpmaddwd ymm", TS_PEAK, TS_BF16, TS_CPU_AVX2, .peak = {CHAINS * 16.0, run},
};
