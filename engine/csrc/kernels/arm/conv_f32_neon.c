/*
 * fp32 on NEON, fmla by element: 4 multiply-accumulates an instruction. 6 pixels by 16 channels: 24 of the 32
 * registers accumulate, enough to hide a latency of 4 on four pipes, and each weight loaded serves six pixels.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <arm_neon.h>

typedef float32x4_t acc_t;
typedef float32x2_t x_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return vld1q_f32((const float *)bias + channel);
}

TS_INLINE x_t load_column(const ts_tile *t, const uint8_t *entry, const int m, const int M)
{
    (void)M;
    x_t x = vld1_f32((const float *)(const void *)(entry + m * t->pixel_step));
    __asm__("" : "+w"(x)); /* one load of two floats: the compiler would rather make two and then spill sums */
    return x;
}

TS_INLINE acc_t dot(acc_t acc, const char *weights, x_t x, const int dword)
{
    const float32x4_t w = vld1q_f32((const float *)(const void *)weights);
    return dword ? vfmaq_lane_f32(acc, w, x, 1) : vfmaq_lane_f32(acc, w, x, 0);
}

TS_INLINE float32x4_t quads_to_float(acc_t acc, float32x4_t scale)
{
    (void)scale;
    return acc;
}

#define WITH_REDUCE
#include "tile_neon.inc"

TS_INLINE void tile(const ts_tile *t, const int M)
{
    acc_t acc[TS_MAX_PIXELS][4];
    reduce(t, acc, M);
    finish(t, acc, M);
}

#include "tiles_6.inc"

const ts_kernel ts_conv_f32_neon = {
    "f32_6x1_neon", TS_CONV, TS_F32, TS_CPU_NEON,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile},
};
