/*
 * u8 activations, s8 weights with sdot by element: 16 multiply-accumulates an instruction. sdot takes signed bytes on
 * both sides, so activations become x - 128 (the sign bit flipped), and sum(x * w) = sum((x - 128) * w) + 128 * sum(w).
 * The last sum comes from one more column of the tile whose activations are all -128: it costs one part in six, but
 * needs no second packing, no correction in the bias, and stays right when the driver leaves out kernel rows.
 * With it the tile is 5 pixels by 16 channels in 24 accumulators. Sums wrap as in any order, so they are exact.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <arm_neon.h>

typedef int32x4_t acc_t;
typedef int8x8_t x_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return vld1q_s32((const int32_t *)bias + channel);
}

TS_INLINE x_t load_column(const ts_tile *t, const uint8_t *entry, const int m, const int M)
{
    const uint8x8_t sign = vdup_n_u8(0x80);
    return vreinterpret_s8_u8(m == M - 1 ? sign : veor_u8(vld1_u8(entry + m * t->pixel_step), sign));
}

TS_INLINE acc_t dot(acc_t acc, const char *weights, x_t x, const int dword)
{
    const int8x16_t w = vld1q_s8((const int8_t *)weights);
    return dword ? vdotq_lane_s32(acc, w, x, 1) : vdotq_lane_s32(acc, w, x, 0);
}

TS_INLINE float32x4_t quads_to_float(acc_t acc, float32x4_t scale)
{
    return vmulq_f32(vcvtq_f32_s32(acc), scale);
}

#define WITH_REDUCE
#include "tile_neon.inc"

TS_INLINE void tile(const ts_tile *t, const int M)
{
    acc_t acc[TS_MAX_PIXELS][4];
    reduce(t, acc, M + 1);
    TS_UNROLL
    for (int q = 0; q < 4; q++) {
        const acc_t correction = vsubq_s32(init(t->epilogue->bias, t->channel + 4 * (size_t)q), acc[M][q]);
        TS_UNROLL
        for (int m = 0; m < M; m++)
            acc[m][q] = vaddq_s32(acc[m][q], correction);
    }
    finish(t, acc, M);
}

static void tile_5(const ts_tile *t) { tile(t, 5); }
static void tile_3(const ts_tile *t) { tile(t, 3); }
static void tile_1(const ts_tile *t) { tile(t, 1); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixel_step;
    if (split)
        return NULL;
    *capacity = pixels > 3 ? 5 : pixels > 1 ? 3 : 1;
    return pixels > 3 ? tile_5 : pixels > 1 ? tile_3 : tile_1;
}

const ts_kernel ts_conv_u8s8_dotprod = {
    "u8s8_5x1_dotprod", TS_CONV, TS_U8, TS_CPU_NEON | TS_CPU_DOTPROD,
    .conv = {.block = TS_GROUP, .pixels = 5, .groups = 1, .select = select_tile},
};
