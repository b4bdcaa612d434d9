/* u8 activations, s8 weights: 14 pixels by 2 groups, which rows of 56, 28, 14 and pairs of 7 fill exactly. */
#include "dot_u8s8_avx512vnni.inc"

#define CHANNEL_BYTES 1
#include "tiles_14x2.inc"

const ts_kernel ts_conv_u8s8_avx512vnni = {
    "u8s8_14x2_avx512vnni", TS_CONV, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI,
    .conv = {.block = TS_GROUP, .pixels = TILE_PIXELS, .groups = TILE_GROUPS, .select = select_tile},
};
