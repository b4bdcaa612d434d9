/* A convolution step as it is built once (conv_build.c) and run for every batch (conv.c). */
#ifndef TS_CONV_H
#define TS_CONV_H

#include "kernels.h"
#include "step.h"

typedef struct {
    const ts_kernel *kernel;
    int stride_h, stride_w;
    int groups, panels; /* panels: of one group */
    ptrdiff_t origin;   /* bytes from the first inner pixel to the first tap of output pixel (0, 0) */
    size_t group_bytes; /* bytes between the input channels of neighbouring groups */
    int32_t *offsets;
    int entries;
    uint8_t *weights; /* in the program's region */
    size_t panel_bytes;
    float *scale;
    void *bias;
    int rows_first; /* input rows outermost: weights are small and stay in cache */
    int split;      /* tiles join two rows of this many pixels; 0: they do not */
    int kernel_h, dilation_h, pad_top;
    int row_entries;        /* reduction entries of one kernel row */
    size_t row_weight_bytes; /* packed bytes of one kernel row in a panel */
    int skip_padding;       /* kernel rows that meet only padding add nothing: leave them out */
    ts_epilogue epilogue;
} ts_conv;

static inline int ts_ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

/* Does the scope's share of a convolution step. */
void ts_conv_run(const ts_step *step, const ts_scope *scope);

#endif
