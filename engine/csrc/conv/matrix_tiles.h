/*
 * How the output pixels of a convolution are cut into tiles of a matrix unit, whose 16 rows lie at equal distances in the
 * input. Two ways:
 * - in images: a tile is 16 places of one image. With stride 1 they follow each other through the whole input, across the
 *   ends of rows, and those that fall between rows are left out: 14 or 7 pixels a row cost no more than their frame.
 *   With a larger stride they are pixels of one row.
 * - across images: a tile is one pixel of 16 images. For small maps, which fill no tile of their own. Pixels at the border
 *   leave out the taps that meet only padding.
 */
#ifndef TS_MATRIX_TILES_H
#define TS_MATRIX_TILES_H

#include "conv/problem.h"

/* A tile, relative to the first pixels of an image. */
typedef struct {
    ptrdiff_t input;        /* of its row 0 */
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
} ts_tiling;

/* Steps of the whole reduction: blocks of input channels by taps. */
int ts_matrix_steps(const ts_conv_problem *problem);

/* Both return 0, or -1 when memory runs out. To be freed in either case. */
int ts_tiling_in_images(const ts_conv_problem *problem, ts_tiling *tiling);
int ts_tiling_across_images(const ts_conv_problem *problem, ts_tiling *tiling);
void ts_tiling_free(ts_tiling *tiling);

#endif
