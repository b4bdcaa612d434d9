/*
 * The contract between the convolution drivers and the micro-kernels.
 *
 * A convolution is cut into tiles: up to `kernel->pixels` output pixels by `kernel->groups` groups of TS_GROUP output
 * channels. One call of a micro-kernel computes one tile over the whole reduction (taps and input channels) and stores
 * it finished: bias, residual, clamp and conversion happen on the accumulators while they are in registers.
 *
 * The reduction is a list of byte offsets from the tile's first input pixel; each entry stands for TS_STEP_BYTES
 * consecutive bytes, that is two dwords, of every pixel of the tile. A dword holds 4 u8, 2 bf16 or 1 f32 channels, so
 * the same lists, drivers and loops serve every element type, kernel size, dilation and layout.
 *
 * No kernel knows C0. Where pixels and groups are stored is told in bytes: a step from pixel to pixel, and an offset for
 * every group of a pixel.
 */
#ifndef TS_CONTRACT_H
#define TS_CONTRACT_H

#include <stddef.h>
#include <stdint.h>

#include "layout/dtype.h"

enum {
    TS_STEP_BYTES = 8,         /* bytes of one pixel that one reduction entry covers */
    TS_MAX_PIXELS = 16,        /* the largest tile any kernel may declare */
    TS_MAX_GROUPS = 4,
    TS_MAX_BLOCK = 64,         /* the largest C0 that a kernel may want */
    TS_CHAIN = 4,              /* the longest chain of products that are added in 16 bits */
    TS_DEPTHWISE_BYTES = 64,   /* of the weights of one tap of a group: 32 bits each, floats or whole numbers of 16 bits */
    TS_ALIGN = 64,
    TS_WEIGHTS_AHEAD = 8192,   /* bytes: weights come from L2 or L3 in one stream, which the CPU alone fetches too late */
};

/*
 * What happens to the accumulators. Integer kernels: q = round(acc * scale + residual * r) + zero, clamped; with
 * `whole_residual` q = round(acc * scale) + residual, clamped.
 */
typedef struct {
    const float *scale;        /* per output channel; null for floating-point kernels */
    const void *bias;          /* per output channel: int32 before scaling, or float */
    ts_dtype out_dtype;        /* TS_U8 (integer kernels only), TS_F32, TS_BF16 */
    int32_t out_zero;          /* zero point of a u8 output */
    int32_t low, high;         /* clamp of a u8 output, within [0, 255] */
    float float_low, float_high; /* clamp of a floating-point output */
    ts_dtype residual_dtype;
    int32_t residual_zero;     /* zero point of a u8 residual */
    float residual_scale;      /* residual scale over output scale (1 for floating-point outputs' own units) */
    int plain;                 /* u8 output and residual with zero points 0 and no clamp beyond u8: the common case */
    int whole_residual;        /* plain, and the residual has the output's scale: 16 bits hold the sum of both */
} ts_epilogue;

/* One dword of the reduction where a kernel has its own order of them (TS_PACK_CHAINS). */
typedef struct {
    int32_t offset;            /* bytes from the tile's first input pixel */
} ts_member;

/* Members one after another, with their packed weights: [members][TS_GROUP][4] s8. */
typedef struct {
    const ts_member *members;
    const int8_t *weights;
    int count;
} ts_member_list;

typedef struct {
    /*
     * Pixels [0, split) start at index 0 of the arrays below, pixels [split, pixels) at index 1: a tile may join two
     * rows. Tiles in one row have split == pixels and never read index 1. With `join` input[1] is where input[0] goes on.
     */
    const uint8_t *input[2];
    const uint8_t *residual[2]; /* channel 0 of the first pixel; null when there is none */
    uint8_t *output[2];         /* channel 0 of the first pixel */
    int split;
    int pixels;                /* pixels to store; the kernel may compute more, from readable memory */
    int groups;                /* channel groups to store */
    ptrdiff_t pixel_step;      /* bytes between input pixels */
    ptrdiff_t residual_step;   /* bytes between residual pixels */
    ptrdiff_t output_step;     /* bytes between stored pixels */
    const ptrdiff_t *residual_groups; /* [groups] bytes from channel 0 of a pixel to each of the tile's groups */
    const ptrdiff_t *output_groups;
    const int32_t *offsets;    /* the reduction */
    int entries;
    const void *weights;       /* packed panel: [entries][2][kernel's groups][TS_GROUP][dword] */
    /* With TS_PACK_CHAINS instead of offsets, entries and weights: chains (conv/chain_forming.h) of n members in element n - 1. */
    ts_member_list chains[TS_CHAIN];
    float factor[2];           /* kernels/bf16_int16.h: the value of one unit of the input, which differs between images */
    size_t channel;            /* first output channel of the tile, an index into scale and bias */
    const ts_epilogue *epilogue;
} ts_tile;

typedef void (*ts_tile_fn)(const ts_tile *tile);

typedef enum { TS_PACK_DWORD = 0, TS_PACK_CHAINS = 1 } ts_packing;

typedef struct {
    int block;                 /* the C0 that it reads and writes best; any multiple of TS_GROUP is right */
    int pixels;                /* widest tile */
    int groups;                /* groups of output channels per tile */
    ts_packing packing;
    /* The function for tiles of up to `pixels` pixels that advance by `pixel_step`; split: 7 + 7 pixels. Null: none. */
    ts_tile_fn (*select)(int pixels, ptrdiff_t pixel_step, int split, int *capacity);
    /* The function for tiles of `pixels` pixels, at most the kernel's, that join two rows anywhere. Null: none. */
    ts_tile_fn (*join)(int pixels);
} ts_conv_kernel;

#endif
