/*
 * u8 activations, s8 weights: 6 pixels by 4 groups. Twice the weights of 14x2 for each pixel loaded: wins where there
 * are too few pixels for wide tiles, above all one pixel of a fully connected layer.
 */
#include "dot_u8s8_avx512vnni.inc"

enum { GROUPS = 4 };

static void tile_6(const ts_tile *t) { tile(t, 6, GROUPS, 16, 6); }
static void tile_6_stride2(const ts_tile *t) { tile(t, 6, GROUPS, 32, 6); }
static void tile_6_any(const ts_tile *t) { tile(t, 6, GROUPS, t->pixel_step, 6); }
static void tile_2(const ts_tile *t) { tile(t, 2, GROUPS, t->pixel_step, 2); }
static void tile_1(const ts_tile *t) { tile(t, 1, GROUPS, t->pixel_step, 1); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    if (split)
        return NULL;
    *capacity = pixels > 2 ? 6 : pixels;
    if (pixels > 2)
        return pixel_step == 16 ? tile_6 : pixel_step == 32 ? tile_6_stride2 : tile_6_any;
    return pixels == 2 ? tile_2 : tile_1;
}

const ts_kernel ts_conv_u8s8_avx512vnni_6x4 = {
    "u8s8_6x4_avx512vnni", TS_CONV, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = GROUPS, .select = select_tile},
};
