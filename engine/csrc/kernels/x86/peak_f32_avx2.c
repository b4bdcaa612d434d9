/* vfmadd231ps on 12 independent accumulators of 8 floats. */
#include "run/cpu.h"
#include "run/peak.h"

#include <immintrin.h>

enum { CHAINS = 12 };
#define UNROLL_CHAINS _Pragma("GCC unroll 12") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    __m256 acc[CHAINS];
    const __m256 x = _mm256_set1_ps(0.5f), w = _mm256_set1_ps(iterations & 1 ? 1.0f : 0.5f);
    UNROLL_CHAINS
    for (int c = 0; c < CHAINS; c++)
        acc[c] = _mm256_set1_ps((float)c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_CHAINS
        for (int c = 0; c < CHAINS; c++)
            acc[c] = _mm256_fmadd_ps(x, w, acc[c]);
    }
    __m256 total = acc[0];
    UNROLL_CHAINS
    for (int c = 1; c < CHAINS; c++)
        total = _mm256_add_ps(total, acc[c]);
    float lanes[8];
    _mm256_storeu_ps(lanes, total);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
}

const ts_peak_loop ts_peak_f32_avx2 = {"vfmadd231ps ymm", TS_CPU_AVX2, TS_F32, CHAINS * 8.0, run};
