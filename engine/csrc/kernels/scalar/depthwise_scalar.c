/* Depthwise convolutions in plain C: for machines without a path of their own, and the oracle of all others. */
#include "store_scalar.inc"

static void depthwise_u8s8(const ts_tile *tile)
{
    const int32_t *bias = (const int32_t *)tile->epilogue->bias + tile->channel;
    const float *scale = tile->epilogue->scale + tile->channel;
    for (int pixel = 0; pixel < tile->pixels; pixel++)
        for (int lane = 0; lane < TS_GROUP; lane++) {
            const uint8_t *input = pixel_of(tile->input, tile, pixel, tile->pixel_step) + lane;
            const int32_t *w = (const int32_t *)tile->weights + lane;
            int32_t sum = bias[lane];
            for (int entry = 0; entry < tile->entries; entry++, w += TS_GROUP)
                sum += input[tile->offsets[entry]] * *w;
            store(tile, pixel, lane, (float)sum * scale[lane]);
        }
}

static void depthwise_float(const ts_tile *tile, ts_dtype dtype)
{
    const float *bias = (const float *)tile->epilogue->bias + tile->channel;
    for (int pixel = 0; pixel < tile->pixels; pixel++)
        for (int lane = 0; lane < TS_GROUP; lane++) {
            const uint8_t *input = pixel_of(tile->input, tile, pixel, tile->pixel_step) + lane * ts_element_bytes(dtype);
            const float *w = (const float *)tile->weights + lane;
            float sum = bias[lane];
            for (int entry = 0; entry < tile->entries; entry++, w += TS_GROUP) {
                float x;
                if (dtype == TS_BF16)
                    x = ts_bf16_load(input + tile->offsets[entry]);
                else
                    memcpy(&x, input + tile->offsets[entry], sizeof x);
                sum += x * *w;
            }
            store(tile, pixel, lane, sum);
        }
}

static void depthwise_f32(const ts_tile *tile) { depthwise_float(tile, TS_F32); }
static void depthwise_bf16(const ts_tile *tile) { depthwise_float(tile, TS_BF16); }

static ts_tile_fn select_u8s8(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixels, (void)pixel_step;
    return split ? NULL : any_tile(depthwise_u8s8, capacity);
}

static ts_tile_fn select_f32(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixels, (void)pixel_step;
    return split ? NULL : any_tile(depthwise_f32, capacity);
}

static ts_tile_fn select_bf16(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixels, (void)pixel_step;
    return split ? NULL : any_tile(depthwise_bf16, capacity);
}

const ts_kernel ts_depthwise_u8s8_scalar = {
    "depthwise_u8s8_scalar", TS_DEPTHWISE, TS_U8, 0, .conv = {.block = TS_GROUP, .pixels = 4, .groups = 1, .select = select_u8s8},
};
const ts_kernel ts_depthwise_f32_scalar = {
    "depthwise_f32_scalar", TS_DEPTHWISE, TS_F32, 0, .conv = {.block = TS_GROUP, .pixels = 4, .groups = 1, .select = select_f32},
};
const ts_kernel ts_depthwise_bf16_scalar = {
    "depthwise_bf16_scalar", TS_DEPTHWISE, TS_BF16, 0, .conv = {.block = TS_GROUP, .pixels = 4, .groups = 1, .select = select_bf16},
};
