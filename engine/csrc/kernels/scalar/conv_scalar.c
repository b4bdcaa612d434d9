/* Plain C micro-kernels: the fallback on any machine, and the oracle that all others are compared with. */
#include <math.h>
#include <string.h>

#include "kernels/table.h"
#include "layout/bf16.h"

static const uint8_t *pixel_of(const uint8_t *const run[2], const ts_tile *tile, int pixel, ptrdiff_t step)
{
    return pixel < tile->split ? run[0] + pixel * step : run[1] + (pixel - tile->split) * step;
}

/* Residual in units of the output (before its zero point). */
static float residual_at(const ts_tile *tile, int pixel, int lane)
{
    const ts_epilogue *epilogue = tile->epilogue;
    const uint8_t *source = pixel_of(tile->residual, tile, pixel, tile->residual_step) + tile->residual_groups[0] +
                            lane * ts_element_bytes(epilogue->residual_dtype);
    float value;
    if (epilogue->residual_dtype == TS_U8)
        return (float)(*source - epilogue->residual_zero);
    if (epilogue->residual_dtype == TS_BF16)
        return ts_bf16_load(source);
    memcpy(&value, source, sizeof value);
    return value;
}

static int32_t clamp_int(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void store(const ts_tile *tile, int pixel, int lane, float value)
{
    const ts_epilogue *epilogue = tile->epilogue;
    const uint8_t *run[2] = {tile->output[0], tile->output[1]};
    uint8_t *target = (uint8_t *)pixel_of(run, tile, pixel, tile->output_step) + tile->output_groups[0] +
                      lane * ts_element_bytes(epilogue->out_dtype);
    if (tile->residual[0])
        value = fmaf(residual_at(tile, pixel, lane), epilogue->residual_scale, value);
    if (epilogue->out_dtype == TS_U8) {
        /* Saturate before the conversion: like cvtps2dq for huge values, without its undefined C counterpart. */
        const float rounded = fminf(fmaxf(rintf(value), -65536.0f), 65536.0f);
        *target = (uint8_t)clamp_int((int32_t)rounded + epilogue->out_zero, epilogue->low, epilogue->high);
        return;
    }
    value = value < epilogue->float_low ? epilogue->float_low : value > epilogue->float_high ? epilogue->float_high : value;
    if (epilogue->out_dtype == TS_BF16)
        ts_bf16_store(target, value);
    else
        memcpy(target, &value, sizeof value);
}

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

static ts_tile_fn any_tile(ts_tile_fn function, int *capacity)
{
    *capacity = 4;
    return function;
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
