/* Exact 8-bit products on AVX2 at their best: chains of four (conv/chain_forming.h), nine instructions for 128 products. */
#include "kernels/contract.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 8 };

typedef __m256i acc_t;
typedef int32_t sum_t;
typedef __m256i operand_t;
typedef int8_t value_t;

#define LEFT 1
#define RIGHT(odd) (int8_t)(odd)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    __m256i sums = _mm256_setzero_si256();
    TS_UNROLL
    for (int n = 0; n < TS_CHAIN; n++) {
        TS_KEEP(*x); /* or the same product would be computed once for all accumulators */
        const __m256i products = _mm256_maddubs_epi16(*x, w);
        sums = n ? _mm256_add_epi16(sums, products) : products;
        TS_KEEP(sums);
    }
    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_u8s8_avx2 = {
    "vpmaddubsw ymm, chains of 4", TS_PEAK, TS_U8, TS_CPU_AVX2, .peak = {CHAINS * 32.0 * TS_CHAIN, run},
};
