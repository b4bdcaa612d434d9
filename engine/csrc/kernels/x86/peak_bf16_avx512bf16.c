/* vdpbf16ps on 16 independent accumulators. */
#include "run/cpu.h"
#include "run/peak.h"

#include <immintrin.h>

enum { CHAINS = 16 };
#define UNROLL_CHAINS _Pragma("GCC unroll 16") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    __m512 acc[CHAINS];
    const __m512i x = _mm512_set1_epi32(0x3f803f80), w = _mm512_set1_epi32(iterations & 1 ? 0x3f803f80 : 0);
    UNROLL_CHAINS
    for (int c = 0; c < CHAINS; c++)
        acc[c] = _mm512_set1_ps((float)c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_CHAINS
        for (int c = 0; c < CHAINS; c++)
            acc[c] = _mm512_dpbf16_ps(acc[c], (__m512bh)x, (__m512bh)w);
    }
    __m512 total = acc[0];
    UNROLL_CHAINS
    for (int c = 1; c < CHAINS; c++)
        total = _mm512_add_ps(total, acc[c]);
    return _mm512_reduce_add_ps(total);
}

const ts_peak_loop ts_peak_bf16_avx512bf16 = {
    "vdpbf16ps zmm", TS_CPU_AVX512 | TS_CPU_AVX512BF16, TS_BF16, CHAINS * 32.0, run,
};
