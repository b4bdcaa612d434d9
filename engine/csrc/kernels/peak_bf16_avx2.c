/*
 * bfloat16 pairs into fp32 sums on AVX2: a shift and a mask make two floats of a pair, each of which two FMAs use, as in
 * conv_bf16_avx2.c. 5 pixels by 16 channels.
 */
#include "../cpu.h"
#include "../peak.h"

#include <immintrin.h>

enum { PIXELS = 5 };
#define UNROLL_PIXELS _Pragma("GCC unroll 5") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    __m256 acc[PIXELS][2];
    __m256i pair = _mm256_set1_epi32(0x3f803f80);
    const __m256 w = _mm256_set1_ps((float)(iterations & 1) * 1e-30f);
    UNROLL_PIXELS
    for (int m = 0; m < PIXELS; m++)
        acc[m][0] = _mm256_set1_ps((float)m), acc[m][1] = _mm256_set1_ps((float)m + 0.5f);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_PIXELS
        for (int m = 0; m < PIXELS; m++) {
            __asm__ volatile("" : "+x"(pair)); /* or it would be cut in two once for all pixels */
            const __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
            const __m256 high = _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000u)));
            acc[m][0] = _mm256_fmadd_ps(high, w, _mm256_fmadd_ps(low, w, acc[m][0]));
            acc[m][1] = _mm256_fmadd_ps(high, w, _mm256_fmadd_ps(low, w, acc[m][1]));
        }
    }
    __m256 total = acc[0][0];
    UNROLL_PIXELS
    for (int m = 0; m < PIXELS; m++)
        total = _mm256_add_ps(total, _mm256_add_ps(acc[m][0], acc[m][1]));
    float lanes[8], sum = 0;
    _mm256_storeu_ps(lanes, total);
    for (int i = 0; i < 8; i++)
        sum += lanes[i];
    return sum;
}

const ts_peak_loop ts_peak_bf16_avx2 = {"vfmadd ymm on pairs", TS_CPU_AVX2, TS_BF16, PIXELS * 2 * 16.0, run};
