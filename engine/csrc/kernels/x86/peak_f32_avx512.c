/* vfmadd231ps on 16 independent accumulators of 16 floats. */
#include "run/cpu.h"
#include "run/peak.h"

#include <immintrin.h>

enum { CHAINS = 16 };
#define UNROLL_CHAINS _Pragma("GCC unroll 16") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    __m512 acc[CHAINS];
    const __m512 x = _mm512_set1_ps(0.5f), w = _mm512_set1_ps(iterations & 1 ? 1.0f : 0.5f);
    UNROLL_CHAINS
    for (int c = 0; c < CHAINS; c++)
        acc[c] = _mm512_set1_ps((float)c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_CHAINS
        for (int c = 0; c < CHAINS; c++)
            acc[c] = _mm512_fmadd_ps(x, w, acc[c]);
    }
    __m512 total = acc[0];
    UNROLL_CHAINS
    for (int c = 1; c < CHAINS; c++)
        total = _mm512_add_ps(total, acc[c]);
    return _mm512_reduce_add_ps(total);
}

const ts_peak_loop ts_peak_f32_avx512 = {"vfmadd231ps zmm", TS_CPU_AVX512, TS_F32, CHAINS * 16.0, run};
