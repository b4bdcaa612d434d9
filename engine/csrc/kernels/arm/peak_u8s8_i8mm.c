/* usmmla. */
#include "kernels/unroll.h"

#include <arm_neon.h>

enum { CHAINS = 24 };

typedef int32x4_t acc_t;
typedef int8x16_t operand_t;

TS_INLINE acc_t start(int chain)
{
    return vdupq_n_s32(chain);
}

TS_INLINE operand_t left(void)
{
    return vdupq_n_s8(1);
}

TS_INLINE operand_t right(int odd)
{
    return vdupq_n_s8((int8_t)odd);
}

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = vusmmlaq_s32(*acc, vreinterpretq_u8_s8(*x), w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_u8s8_i8mm = {
    "usmmla 4s", TS_PEAK, TS_U8, TS_CPU_NEON | TS_CPU_I8MM, .peak = {CHAINS * 32.0, run},
};
