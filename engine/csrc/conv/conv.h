/* A convolution step as it is built once (conv_build.c) and run for every batch (conv.c). */
#ifndef TS_CONV_H
#define TS_CONV_H

#include "kernels/bf16_int16.h"
#include "kernels/table.h"
#include "run/execution.h"
#include "kernels/winograd.h"

/* The lists of one panel (TS_PACK_CHAINS) and where each kernel row begins in them. */
typedef struct {
    ts_member_list chains[TS_CHAIN];
    const int32_t *rows[TS_CHAIN]; /* [kernel rows + 1], in members */
} ts_chained_panel;

/* A convolution that runs by Winograd's algorithm (conv_winograd.c). */
typedef struct {
    const ts_winograd_kernel *kernel; /* null: it does not */
    int rows, columns;                /* tiles of one image */
    int most_tiles;                   /* of one pass over the weights */
    int16_t *weights;                 /* [output blocks][positions][input channels / 2][16 lanes][2], in the program's region */
    size_t block_weights;             /* elements of one output block */
} ts_winograd;

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
    ts_chained_panel *chained; /* [groups * panels] with TS_PACK_CHAINS, else null */
    float *scale;
    void *bias;
    int rows_first; /* input rows outermost: weights are small and stay in cache */
    int split;      /* tiles join two rows of this many pixels; 0: they do not */
    int kernel_h, dilation_h, pad_top, pad_left;
    int row_entries;        /* reduction entries of one kernel row */
    size_t row_weight_bytes; /* packed bytes of one kernel row in a panel */
    int skip_padding;       /* kernel rows that meet only padding add nothing: leave them out */
    ts_winograd winograd;
    const ts_int16_kernel *int16; /* null: `kernel` reads the source as it is */
    ts_epilogue epilogue;
} ts_conv;

static inline int ts_ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

/* Where each element of the reduction comes from: an index into one filter's [I][H][W], or -1 for padding. */
typedef struct {
    int32_t *source;
    int count;
} ts_reduction;

/*
 * Packs the weights of a step whose kernel wants TS_PACK_CHAINS. `weights`: s8 [outputs of all groups][filter]. 0, or -1
 * when memory runs out.
 */
int ts_pack_chains(ts_program *program, ts_conv *data, const ts_reduction *order, const int8_t *weights, int outputs, int filter);

/* Whether a convolution step runs by Winograd's algorithm: it is shaped for it, faster, and exact with these weights. */
int ts_winograd_takes(const ts_program *program, const ts_conv *data, const ts_conv_desc *desc, const ts_tensor *source,
                      const ts_tensor *target);

/* Transforms its weights. 0, or -1 when memory runs out. */
int ts_pack_winograd(ts_program *program, ts_conv *data, const ts_conv_desc *desc, const ts_tensor *source, const ts_tensor *target);

/* Whether a convolution step runs in 16-bit whole numbers: bfloat16 that the CPU has no instruction for. */
int ts_int16_takes(const ts_program *program, const ts_conv *data, const ts_conv_desc *desc, int channels, int filter);

/* Rounds and packs its weights. 0, or -1 when memory runs out. */
int ts_pack_int16(ts_program *program, ts_conv *data, const ts_reduction *order, const ts_conv_desc *desc,
                  const ts_tensor *source, int outputs, int filter);

/* Rounds the scope's images into this thread's scratch. */
void ts_int16_prepare(const ts_step *step, const ts_scope *scope);

/* The first pixel inside the frame of a prepared image, and the value of one of its units. */
const uint8_t *ts_int16_pixels(const ts_step *step, const ts_scope *scope, int image, float *factor);

/* Do the scope's share of a convolution step. */
void ts_winograd_run(const ts_step *step, const ts_scope *scope);
void ts_conv_run(const ts_step *step, const ts_scope *scope);

#endif
