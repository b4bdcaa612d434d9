/* fmla on 24 independent accumulators of 4 floats: a latency of 4 on four pipes stays hidden. */
#include "run/cpu.h"
#include "run/peak.h"

#include <arm_neon.h>

enum { CHAINS = 24 };
#define UNROLL_CHAINS _Pragma("GCC unroll 24") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    float32x4_t acc[CHAINS];
    const float32x4_t x = vdupq_n_f32(0.5f), w = vdupq_n_f32(iterations & 1 ? 1.0f : 0.5f);
    UNROLL_CHAINS
    for (int c = 0; c < CHAINS; c++)
        acc[c] = vdupq_n_f32((float)c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_CHAINS
        for (int c = 0; c < CHAINS; c++)
            acc[c] = vfmaq_f32(acc[c], x, w);
    }
    float32x4_t total = acc[0];
    UNROLL_CHAINS
    for (int c = 1; c < CHAINS; c++)
        total = vaddq_f32(total, acc[c]);
    return vaddvq_f32(total);
}

const ts_peak_loop ts_peak_f32_neon = {"fmla 4s", TS_CPU_NEON, TS_F32, CHAINS * 4.0, run};
