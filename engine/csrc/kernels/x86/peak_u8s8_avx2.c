/*
 * Exact 8-bit products on AVX2 at their best: chains of four (chains.h), nine instructions for 128 products, on 8
 * independent accumulators.
 */
#include "run/cpu.h"
#include "run/peak.h"
#include "kernels/contract.h"

#include <immintrin.h>

enum { ACCUMULATORS = 8 };
#define UNROLL _Pragma("GCC unroll 8") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    __m256i acc[ACCUMULATORS];
    __m256i x = _mm256_set1_epi8(1);
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i w = _mm256_set1_epi8((char)(iterations & 1));
    UNROLL
    for (int c = 0; c < ACCUMULATORS; c++)
        acc[c] = _mm256_set1_epi32(c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL
        for (int c = 0; c < ACCUMULATORS; c++) {
            __m256i sums = _mm256_setzero_si256();
            UNROLL
            for (int n = 0; n < TS_CHAIN; n++) {
                __asm__ volatile("" : "+x"(x)); /* or the same product would be computed once for all */
                const __m256i products = _mm256_maddubs_epi16(x, w);
                sums = n ? _mm256_add_epi16(sums, products) : products;
                __asm__ volatile("" : "+x"(sums)); /* or sums would be regrouped and move through memory */
            }
            acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(sums, ones));
        }
    }
    __m256i total = acc[0];
    UNROLL
    for (int c = 1; c < ACCUMULATORS; c++)
        total = _mm256_xor_si256(total, acc[c]);
    int32_t lanes[8];
    _mm256_storeu_si256((__m256i *)lanes, total);
    return (float)(lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3] ^ lanes[4] ^ lanes[5] ^ lanes[6] ^ lanes[7]);
}

const ts_peak_loop ts_peak_u8s8_avx2 = {"vpmaddubsw ymm, chains of 4", TS_CPU_AVX2, TS_U8, ACCUMULATORS * 32.0 * TS_CHAIN, run};
