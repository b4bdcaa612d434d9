/* fmla on 4 floats: a latency of 4 on four pipes stays hidden. */
#include "kernels/unroll.h"

#include <arm_neon.h>

enum { CHAINS = 24 };

typedef float32x4_t acc_t;
typedef float sum_t;
typedef float32x4_t operand_t;
typedef float value_t;

#define LEFT 0.5f
#define RIGHT(odd) ((odd) ? 1.0f : 0.5f)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = vfmaq_f32(*acc, *x, w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_f32_neon = {
    "fmla 4s", TS_PEAK, TS_F32, TS_CPU_NEON, .peak = {CHAINS * 4.0, run},
};
