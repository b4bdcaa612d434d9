/* vpdpbusd in its 256-bit VEX form on 12 independent accumulators. */
#include "run/cpu.h"
#include "run/peak.h"

#include <immintrin.h>

enum { CHAINS = 12 };
#define UNROLL_CHAINS _Pragma("GCC unroll 12") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    __m256i acc[CHAINS];
    const __m256i x = _mm256_set1_epi8(1), w = _mm256_set1_epi8((char)(iterations & 1));
    UNROLL_CHAINS
    for (int c = 0; c < CHAINS; c++)
        acc[c] = _mm256_set1_epi32(c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_CHAINS
        for (int c = 0; c < CHAINS; c++)
            acc[c] = _mm256_dpbusd_avx_epi32(acc[c], x, w);
    }
    __m256i total = acc[0];
    UNROLL_CHAINS
    for (int c = 1; c < CHAINS; c++)
        total = _mm256_xor_si256(total, acc[c]);
    int32_t lanes[8];
    _mm256_storeu_si256((__m256i *)(void *)lanes, total);
    return (float)(lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3] ^ lanes[4] ^ lanes[5] ^ lanes[6] ^ lanes[7]);
}

const ts_peak_loop ts_peak_u8s8_avxvnni = {
    "vpdpbusd ymm", TS_CPU_AVX2 | TS_CPU_AVXVNNI, TS_U8, CHAINS * 32.0, run,
};
