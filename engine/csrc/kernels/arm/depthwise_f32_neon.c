/* Depthwise fp32 on NEON: six pixels of a group take 24 accumulators, and its weights four registers. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <arm_neon.h>

typedef float32x4_t acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return vld1q_f32((const float *)bias + channel);
}

TS_INLINE acc_t load_weights(const char *source, int quad)
{
    return vld1q_f32((const float *)(const void *)source + 4 * quad);
}

TS_INLINE acc_t dot(acc_t acc, const uint8_t *pixel, acc_t weights, int quad)
{
    return vfmaq_f32(acc, vld1q_f32((const float *)(const void *)pixel + 4 * quad), weights);
}

TS_INLINE float32x4_t quads_to_float(acc_t acc, float32x4_t scale)
{
    (void)scale;
    return acc;
}

#include "depthwise_neon.inc"

const ts_kernel ts_depthwise_f32_neon = {
    "depthwise_f32_6_neon", TS_DEPTHWISE, TS_F32, TS_CPU_NEON,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile},
};
