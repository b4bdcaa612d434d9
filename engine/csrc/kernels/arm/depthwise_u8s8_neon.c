/* Depthwise u8 by s8 on NEON: bytes widen to words, and vmlal multiplies these. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <arm_neon.h>

typedef int32x4_t acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return vld1q_s32((const int32_t *)bias + channel);
}

TS_INLINE int16x4_t load_weights(const char *source, int quad)
{
    return vmovn_s32(vld1q_s32((const int32_t *)(const void *)source + 4 * quad));
}

TS_INLINE acc_t dot(acc_t acc, const uint8_t *pixel, int16x4_t weights, int quad)
{
    const int16x8_t words = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(pixel + 8 * (quad / 2))));
    return vmlal_s16(acc, quad % 2 ? vget_high_s16(words) : vget_low_s16(words), weights);
}

TS_INLINE float32x4_t quads_to_float(acc_t acc, float32x4_t scale)
{
    return vmulq_f32(vcvtq_f32_s32(acc), scale);
}

#define WEIGHTS_T int16x4_t
#include "depthwise_neon.inc"

const ts_kernel ts_depthwise_u8s8_neon = {
    "depthwise_u8s8_6_neon", TS_DEPTHWISE, TS_U8, TS_CPU_NEON,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile},
};
