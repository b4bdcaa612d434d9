/* usmmla on 24 independent accumulators. */
#include "run/cpu.h"
#include "run/peak.h"

#include <arm_neon.h>

enum { CHAINS = 24 };
#define UNROLL_CHAINS _Pragma("GCC unroll 24") /* or the accumulators would live in memory */

static float run(int64_t iterations)
{
    int32x4_t acc[CHAINS];
    const uint8x16_t x = vdupq_n_u8(1);
    const int8x16_t w = vdupq_n_s8((int8_t)(iterations & 1));
    UNROLL_CHAINS
    for (int c = 0; c < CHAINS; c++)
        acc[c] = vdupq_n_s32(c);
    for (int64_t i = 0; i < iterations; i++) {
        UNROLL_CHAINS
        for (int c = 0; c < CHAINS; c++)
            acc[c] = vusmmlaq_s32(acc[c], x, w);
    }
    int32x4_t total = acc[0];
    UNROLL_CHAINS
    for (int c = 1; c < CHAINS; c++)
        total = veorq_s32(total, acc[c]);
    return (float)vaddvq_s32(total);
}

const ts_peak_loop ts_peak_u8s8_i8mm = {"usmmla 4s", TS_CPU_NEON | TS_CPU_I8MM, TS_U8, CHAINS * 32.0, run};
