/*
 * The contract between convolutions on a matrix unit (conv/matrix.c) and its kernels.
 *
 * A matrix unit multiplies a tile of 16 rows by 64 bytes with one of 64 bytes by 16 channels in one product. A row is an
 * output pixel; its 64 bytes are one block of input channels at one tap, which is one step of the reduction. So pixels are
 * read from where they lie, if blocks are TS_MATRIX_BYTES long and the rows of a tile lie at equal distances. Outputs
 * are written a pixel at a time, to any address: which rows are wanted, and where they go, is a list of places.
 *
 * A call computes the sums of one block of tiles and, between the products, finishes the block before: bias, scale,
 * residual and conversion run on vectors that the products leave free. So the sums of a block are complete one call later.
 */
#ifndef TS_MATRIX_H
#define TS_MATRIX_H

#include "kernels/contract.h"

enum {
    TS_MATRIX_ROWS = 16,     /* pixels of a tile */
    TS_MATRIX_BYTES = 64,    /* of a pixel that one step of the reduction covers */
    TS_MATRIX_CHANNELS = 64, /* output channels of a panel */
    TS_MATRIX_TILE = 1024,   /* bytes of a tile of weights: [16 dwords][16 channels][dword] */
    TS_MATRIX_STEP = 2 * TS_MATRIX_TILE, /* bytes of one step of half a panel */
    TS_MATRIX_SUMS = 2 * TS_MATRIX_ROWS * TS_MATRIX_CHANNELS, /* of the largest block of tiles */
};

typedef struct {
    int32_t input;   /* bytes from a tile's first row */
    int32_t weights; /* bytes from the first step of half a panel */
} ts_matrix_step;

/* A row that is wanted: which one, and bytes from the tile's output and residual. */
typedef struct {
    int32_t row, output, residual;
} ts_matrix_place;

typedef struct {
    const uint8_t *input; /* the row 0 of step {0} */
    uint8_t *output;
    const uint8_t *residual; /* null: none */
    const ts_matrix_place *places;
    int count; /* of places */
} ts_matrix_tile;

typedef struct {
    ts_matrix_tile tiles[2]; /* a block of one tile has the first one twice, the second time without places */
    ptrdiff_t input_step;    /* bytes from row to row */
    const ts_matrix_step *steps;
    int step_count;
    const uint8_t *weights;  /* a panel: [2 halves][step][2 tiles][TS_MATRIX_TILE] */
    ptrdiff_t half_bytes;    /* of half a panel */
    const void *bias;        /* [64] s32 or float, in the order of columns; so is scale, which floats lack */
    const float *scale;
    ptrdiff_t output_plane, residual_plane; /* bytes from block to block of channels, where a panel has several */
    const ts_epilogue *epilogue;
    int32_t *sums;           /* [rows of the block][64] s32 or float: where its sums go; may be those of the block before */
} ts_matrix_block;

/* How a block is cut into tiles. */
typedef enum {
    TS_MATRIX_2X2,          /* two tiles of pixels, two times 32 channels: for weights that stay in L1 */
    TS_MATRIX_2X2_STREAMED, /* the same for weights that come from L2 and must not push the pixels out of L1 */
    TS_MATRIX_1X4,          /* one tile of pixels, which are streamed, by 64 channels, whose weights stay in L1 */
    TS_MATRIX_FORMS,
} ts_matrix_form;

typedef struct {
    int block; /* C0 that it reads and writes: TS_MATRIX_BYTES */
    int (*channel)(int tile, int column); /* of a panel, that a column of one of its four tiles holds */
    /*
     * Around all calls of a thread in a layer. `saved` takes what the unit's state was and gives it back, for other
     * libraries of the process use it too.
     */
    void (*open)(uint8_t saved[64]);
    void (*close)(const uint8_t saved[64]);
    /* Sums of `block`; finishes `before`, which is null in the first call. */
    void (*multiply[TS_MATRIX_FORMS])(const ts_matrix_block *block, const ts_matrix_block *before);
    /* Finishes the last block. */
    void (*finish[TS_MATRIX_FORMS])(const ts_matrix_block *last);
} ts_matrix_kernel;

#endif
