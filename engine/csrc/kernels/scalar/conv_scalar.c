/* Plain C micro-kernels: the fallback on any machine, and the oracle that all others are compared with. */
#include <string.h>

#include "kernels/table.h"
#include "layout/bf16.h"

#include "store_scalar.inc"

static int32_t dot_u8s8(const ts_tile *tile, const uint8_t *input, int lane)
{
    const int8_t *weights = tile->weights;
    int32_t sum = 0;
    for (int entry = 0; entry < tile->entries; entry++)
        for (int dword = 0; dword < 2; dword++) {
            const uint8_t *x = input + tile->offsets[entry] + 4 * dword;
            const int8_t *w = weights + (((size_t)entry * 2 + (size_t)dword) * TS_GROUP + (size_t)lane) * 4;
            for (int i = 0; i < 4; i++)
                sum += x[i] * w[i];
        }
    return sum;
}

static void conv_u8s8(const ts_tile *tile)
{
    const ts_epilogue *epilogue = tile->epilogue;
    const int32_t *bias = (const int32_t *)epilogue->bias + tile->channel;
    const float *scale = epilogue->scale + tile->channel;
    for (int pixel = 0; pixel < tile->pixels; pixel++)
        for (int lane = 0; lane < TS_GROUP; lane++) {
            const uint8_t *input = pixel_of(tile->input, tile, pixel, tile->pixel_step);
            const int32_t sum = bias[lane] + dot_u8s8(tile, input, lane);
            store(tile, pixel, lane, (float)sum * scale[lane]);
        }
}

static void conv_f32(const ts_tile *tile)
{
    const float *bias = (const float *)tile->epilogue->bias + tile->channel;
    for (int pixel = 0; pixel < tile->pixels; pixel++)
        for (int lane = 0; lane < TS_GROUP; lane++) {
            const uint8_t *input = pixel_of(tile->input, tile, pixel, tile->pixel_step);
            const float *w = (const float *)tile->weights + lane;
            float sum = bias[lane];
            for (int entry = 0; entry < tile->entries; entry++)
                for (int dword = 0; dword < 2; dword++, w += TS_GROUP) {
                    float x;
                    memcpy(&x, input + tile->offsets[entry] + 4 * dword, sizeof x);
                    sum += x * *w;
                }
            store(tile, pixel, lane, sum);
        }
}

static void conv_bf16(const ts_tile *tile)
{
    const float *bias = (const float *)tile->epilogue->bias + tile->channel;
    for (int pixel = 0; pixel < tile->pixels; pixel++)
        for (int lane = 0; lane < TS_GROUP; lane++) {
            const uint8_t *input = pixel_of(tile->input, tile, pixel, tile->pixel_step);
            const uint8_t *w = (const uint8_t *)tile->weights + 4 * lane;
            float sum = bias[lane];
            for (int entry = 0; entry < tile->entries; entry++)
                for (int dword = 0; dword < 2; dword++, w += 4 * TS_GROUP) {
                    const uint8_t *x = input + tile->offsets[entry] + 4 * dword;
                    sum += ts_bf16_load(x) * ts_bf16_load(w) + ts_bf16_load(x + 2) * ts_bf16_load(w + 2);
                }
            store(tile, pixel, lane, sum);
        }
}

static ts_tile_fn select_u8s8(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixels, (void)pixel_step;
    return split ? NULL : any_tile(conv_u8s8, capacity);
}

static ts_tile_fn select_f32(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixels, (void)pixel_step;
    return split ? NULL : any_tile(conv_f32, capacity);
}

static ts_tile_fn select_bf16(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixels, (void)pixel_step;
    return split ? NULL : any_tile(conv_bf16, capacity);
}

const ts_kernel ts_conv_u8s8_scalar = {
    "u8s8_4x1_scalar", TS_CONV, TS_U8, 0, .conv = {.block = TS_GROUP, .pixels = 4, .groups = 1, .select = select_u8s8},
};
const ts_kernel ts_conv_f32_scalar = {
    "f32_4x1_scalar", TS_CONV, TS_F32, 0, .conv = {.block = TS_GROUP, .pixels = 4, .groups = 1, .select = select_f32},
};
const ts_kernel ts_conv_bf16_scalar = {
    "bf16_4x1_scalar", TS_CONV, TS_BF16, 0, .conv = {.block = TS_GROUP, .pixels = 4, .groups = 1, .select = select_bf16},
};
