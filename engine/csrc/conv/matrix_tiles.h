/*
 * How the output pixels of a convolution are cut into tiles of a matrix unit, whose 16 rows lie at equal distances in the
 * input. Two ways:
 * - in images: a tile is 16 places of one image. With stride 1 they follow each other through the whole input, across the
 *   ends of rows, and those that fall between rows are left out: 14 or 7 pixels a row cost no more than their frame.
 *   With stride 2 they do so through a phase of the input, where it is in phases. Else they are pixels of one row.
 * - across images: a tile is one pixel of 16 images. For small maps, which fill no tile of their own. Pixels at the border
 *   leave out the taps that meet only padding.
 * Packed images, whose pixels are shorter than a step, are lowered: the bytes that an output pixel reads are copied side by
 * side, one row of kernel taps after another, and a tile is any 16 output pixels.
 */
#ifndef TS_MATRIX_TILES_H
#define TS_MATRIX_TILES_H

#include "conv/problem.h"

/* A tile, relative to the first pixels of an image. */
typedef struct {
    ptrdiff_t input;        /* of its row 0 */
    int position;           /* of its row 0 among the output pixels of an image, row by row */
    ptrdiff_t output, residual;
    int first, count;       /* its places */
    int list;               /* its reduction */
} ts_tile_plan;

/* A reduction: steps [first, first + count). */
typedef struct {
    int first, count;
} ts_step_list;

typedef struct {
    ts_tile_plan *tiles;
    int tile_count;
    ts_matrix_place *places; /* of all tiles */
    ptrdiff_t input_step;
    ts_matrix_step *steps;   /* of all lists */
    ts_step_list *lists;
    int list_count;
    int across;              /* across images */
    int lowered;             /* tiles are read from a copy that ts_lower makes */
} ts_tiling;

/*
 * The steps of a reduction, blocks of input channels by taps, and where their weights lie in half a panel. A step is there
 * again for each later array of weights (ts_conv_desc.rests) that is more than zeros in it.
 */
typedef struct {
    int once;  /* steps of one array */
    int steps; /* of all */
    int *at;   /* [arrays][once] in steps, -1 where all weights are zeros */
} ts_matrix_order;

/* Byte of the reduction that an input channel and a tap have: lowered pixels are taps by channels; blocks have all taps of 64 bytes of channels. */
int ts_matrix_byte(const ts_conv_problem *problem, int channel, int tap);

/* These return 0, or -1 when memory runs out. To be freed in either case. */
int ts_matrix_order_build(const ts_conv_problem *problem, ts_matrix_order *order);
int ts_tiling_in_images(const ts_conv_problem *problem, const ts_matrix_order *order, ts_tiling *tiling);
int ts_tiling_across_images(const ts_conv_problem *problem, const ts_matrix_order *order, ts_tiling *tiling);

/* Rows of a lowered tile are this far apart. */
size_t ts_lowered_bytes(const ts_conv_problem *problem);

/* Bytes of a kernel row in packed pixels, and from a pixel to the tap (0, 0) of its window. */
typedef struct {
    int kernel_h, span;
    int width, height;  /* of the output */
    ptrdiff_t origin, row_step, tap_step, pixel_step; /* from output row to row, kernel row to row, output pixel to pixel */
    size_t row_bytes;   /* ts_lowered_bytes */
} ts_lowering;

enum { TS_COPY = 32 }; /* bytes that are copied at once: up to so many follow a row of the copy, and of an image */

ts_lowering ts_lowering_of(const ts_conv_problem *problem);

/* Copies what 16 output pixels from `position` on read; `image` is its first inner pixel. Past the last pixel it repeats. */
void ts_lower(const ts_lowering *lowering, const uint8_t *image, int position, uint8_t *rows);

void ts_tiling_free(ts_tiling *tiling);

#endif
