/* u8 activations, s8 weights: 9 pixels by 3 groups, between the other two in loads for each multiplication. */
#include "dot_u8s8_avx512vnni.inc"

enum { GROUPS = 3 };

static void tile_9(const ts_tile *t) { tile(t, 9, GROUPS, 16, 9); }
static void tile_9_stride2(const ts_tile *t) { tile(t, 9, GROUPS, 32, 9); }
static void tile_9_any(const ts_tile *t) { tile(t, 9, GROUPS, t->pixel_step, 9); }
static void tile_5(const ts_tile *t) { tile(t, 5, GROUPS, t->pixel_step, 5); }
static void tile_1(const ts_tile *t) { tile(t, 1, GROUPS, t->pixel_step, 1); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    if (split)
        return NULL;
    *capacity = pixels > 5 ? 9 : pixels > 1 ? 5 : 1;
    if (pixels > 5)
        return pixel_step == 16 ? tile_9 : pixel_step == 32 ? tile_9_stride2 : tile_9_any;
    return pixels > 1 ? tile_5 : tile_1;
}

const ts_kernel ts_conv_u8s8_avx512vnni_9x3 = {
    "u8s8_9x3_avx512vnni", TS_CONV, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI,
    .conv = {.block = TS_GROUP, .pixels = 9, .groups = GROUPS, .select = select_tile},
};
