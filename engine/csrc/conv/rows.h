/* The loops that all algorithms share whose kernels keep the tile contract: rows of output pixels, cut into tiles. */
#ifndef TS_ROWS_H
#define TS_ROWS_H

#include "conv/problem.h"

typedef struct {
    const ts_conv_kernel *kernel;
    const ts_epilogue *epilogue;
    int stride_h, stride_w, kernel_h, dilation_h, pad_top;
    int conv_groups, panels; /* panels: of one group of the convolution */
    ptrdiff_t origin;        /* bytes from the first inner pixel to the first tap of output pixel (0, 0) */
    int rows_first;          /* input rows outermost: weights are small and stay in cache */
    int split;               /* tiles join two rows of this many pixels; 0: they do not */
    int flat;                /* so many rows, whose input pixels follow each other, are cut into tiles as one; 1: none */
    int follows;             /* their output pixels and residuals follow each other too */
    int skip_padding;        /* kernel rows that meet only padding add nothing: leave them out */

    /* Sets the tile's reduction over kernel rows [from, to). `panel` counts through all groups of the convolution. */
    void (*reduce)(const void *data, ts_tile *tile, int panel, int from, int to);
    /* The first inner pixel of an image, where it is not the source tensor's; may set the tile's `factor`. Null: it is. */
    const uint8_t *(*pixels)(const ts_step *step, const ts_scope *scope, int image, float *factor);
    /* What a thread does once before its first tile. Null: nothing. */
    void (*prepare)(const ts_step *step, const ts_scope *scope);
} ts_rows;

/* Everything that follows from the problem; `panel_bytes` of packed weights decide which loop is outermost. */
ts_rows ts_rows_of(const ts_conv_problem *problem, const ts_conv_kernel *kernel, size_t panel_bytes);

void ts_rows_run(const ts_step *step, const ts_scope *scope, const ts_rows *rows);

#endif
