/* usmmla. */
#include "kernels/unroll.h"

#include <arm_neon.h>

enum { CHAINS = 24 };

typedef int32x4_t acc_t;
typedef int32_t sum_t;
typedef int8x16_t operand_t;
typedef int8_t value_t;

#define LEFT 1
#define RIGHT(odd) (int8_t)(odd)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = vusmmlaq_s32(*acc, vreinterpretq_u8_s8(*x), w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_u8s8_i8mm = {
    "usmmla 4s", TS_PEAK, TS_U8, TS_CPU_NEON | TS_CPU_I8MM, .peak = {CHAINS * 32.0, run},
};
