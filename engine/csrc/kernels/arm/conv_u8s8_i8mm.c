/*
 * u8 activations, s8 weights with usmmla: two pixels by two channels over 8 bytes, 32 multiply-accumulates an
 * instruction, of mixed signs as they are. One entry of the reduction is the 8 bytes of a pixel; the same 8 bytes of
 * two channels come from the two dwords of the packed panel by one zip. 6 pixels by 16 channels: 24 accumulators.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <arm_neon.h>

typedef int32x4_t acc_t;

TS_INLINE float32x4_t quads_to_float(acc_t acc, float32x4_t scale)
{
    return vmulq_f32(vcvtq_f32_s32(acc), scale);
}

#include "tile_neon.inc"

enum { CHANNEL_PAIRS = TS_GROUP / 2 };

/* Sums of two pixels and two channels: [pixel 0, channel 0], [0, 1], [1, 0], [1, 1]. */
typedef int32x4_t square_t;

TS_INLINE void multiply_entry(const ts_tile *t, const uint8_t *entry, const int8_t *weights,
                              square_t (*sum)[CHANNEL_PAIRS], const int pairs)
{
    uint8x16_t x[TS_MAX_PIXELS / 2];
    TS_UNROLL
    for (int p = 0; p < pairs; p++) {
        const uint8_t *pixel = entry + 2 * p * t->pixel_step;
        x[p] = vcombine_u8(vld1_u8(pixel), vld1_u8(pixel + t->pixel_step));
    }
    TS_UNROLL
    for (int q = 0; q < 4; q++) {
        const int32x4_t first = vreinterpretq_s32_s8(vld1q_s8(weights + 16 * q));
        const int32x4_t second = vreinterpretq_s32_s8(vld1q_s8(weights + 64 + 16 * q));
        const int8x16_t even = vreinterpretq_s8_s32(vzip1q_s32(first, second));
        const int8x16_t odd = vreinterpretq_s8_s32(vzip2q_s32(first, second));
        TS_UNROLL
        for (int p = 0; p < pairs; p++) {
            sum[p][2 * q] = vusmmlaq_s32(sum[p][2 * q], x[p], even);
            sum[p][2 * q + 1] = vusmmlaq_s32(sum[p][2 * q + 1], x[p], odd);
        }
    }
}

/* The rows of two squares side by side are four neighbouring channels of one pixel each. */
TS_INLINE void separate_pixels(square_t (*sum)[CHANNEL_PAIRS], acc_t (*acc)[4], const int pairs)
{
    TS_UNROLL
    for (int p = 0; p < pairs; p++)
        for (int q = 0; q < 4; q++) {
            const int64x2_t left = vreinterpretq_s64_s32(sum[p][2 * q]);
            const int64x2_t right = vreinterpretq_s64_s32(sum[p][2 * q + 1]);
            acc[2 * p][q] = vreinterpretq_s32_s64(vzip1q_s64(left, right));
            acc[2 * p + 1][q] = vreinterpretq_s32_s64(vzip2q_s64(left, right));
        }
}

TS_INLINE void tile(const ts_tile *t, const int M)
{
    const int32_t *bias = (const int32_t *)t->epilogue->bias + t->channel;
    square_t sum[TS_MAX_PIXELS / 2][CHANNEL_PAIRS];
    TS_UNROLL
    for (int p = 0; p < M / 2; p++)
        for (int c = 0; c < CHANNEL_PAIRS; c++)
            sum[p][c] = vcombine_s32(vld1_s32(bias + 2 * c), vld1_s32(bias + 2 * c));
    const int8_t *weights = t->weights;
    const int32_t *offset = t->offsets, *end = offset + t->entries;
    for (; offset < end; offset++, weights += 2 * 64)
        multiply_entry(t, t->input[0] + *offset, weights, sum, M / 2);
    acc_t acc[TS_MAX_PIXELS][4];
    separate_pixels(sum, acc, M / 2);
    finish(t, acc, M);
}

static void tile_6(const ts_tile *t) { tile(t, 6); }
static void tile_4(const ts_tile *t) { tile(t, 4); }
static void tile_2(const ts_tile *t) { tile(t, 2); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixel_step;
    if (split)
        return NULL;
    *capacity = pixels > 4 ? 6 : pixels > 2 ? 4 : 2;
    return pixels > 4 ? tile_6 : pixels > 2 ? tile_4 : tile_2;
}

const ts_kernel ts_conv_u8s8_i8mm = {
    "u8s8_6x1_i8mm", TS_CONV, TS_U8, TS_CPU_NEON | TS_CPU_I8MM,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile},
};
