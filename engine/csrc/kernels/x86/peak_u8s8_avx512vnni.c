/* vpdpbusd on 16 independent accumulators: latency hidden, nothing loaded. */
#include "run/cpu.h"
#include "run/peak.h"

#include <immintrin.h>

enum { CHAINS = 16 };
#define UNROLL_CHAINS _Pragma("GCC unroll 16") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    __m512i acc[CHAINS];
    const __m512i x = _mm512_set1_epi8(1), w = _mm512_set1_epi8((char)(iterations & 1));
    UNROLL_CHAINS
    for (int c = 0; c < CHAINS; c++)
        acc[c] = _mm512_set1_epi32(c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_CHAINS
        for (int c = 0; c < CHAINS; c++)
            acc[c] = _mm512_dpbusd_epi32(acc[c], x, w);
    }
    __m512i total = acc[0];
    UNROLL_CHAINS
    for (int c = 1; c < CHAINS; c++)
        total = _mm512_xor_si512(total, acc[c]);
    return (float)_mm512_reduce_add_epi32(total);
}

const ts_peak_loop ts_peak_u8s8_avx512vnni = {
    "vpdpbusd zmm", TS_CPU_AVX512 | TS_CPU_AVX512VNNI, TS_U8, CHAINS * 64.0, run,
};
