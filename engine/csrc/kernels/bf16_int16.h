/*
 * bfloat16 convolutions in 16-bit whole numbers, for CPUs that multiply those twice as fast as floats and have no
 * instruction for bfloat16.
 *
 * Every image gets a scale of its own: its largest magnitude becomes TS_INT16_LIMIT, and every value is rounded to that
 * grid. Weights get a scale for each output channel, as fine as 16 bits and 32-bit sums allow: however the activations fall,
 * no sum over TS_INT16_SPAN values of the reduction overflows, and after that many the sums move on to floats. So weights
 * keep about as many bits as bfloat16 has and activations more than it gives all but the smallest of them. Layers that read
 * an outlier channel, told by its small weights, stay in bfloat16 (conv/bf16_int16.c).
 */
#ifndef TS_BF16_INT16_H
#define TS_BF16_INT16_H

#include "kernels/contract.h"

enum {
    TS_INT16_LIMIT = 16383,
    TS_INT16_SPAN = 512,  /* values of the reduction whose products are summed in 32 bits */
};

typedef struct {
    /* Rounds `count` bf16 to whole numbers; returns the value of one of them, NaN when the values are not all finite. */
    float (*quantise)(const uint8_t *values, size_t count, int16_t *out);

    /* Tiles of whole numbers: weights [entries][2][kernel's groups][TS_GROUP][2] s16, scales in the epilogue and in the tile's `factor`. */
    ts_conv_kernel conv;
} ts_int16_kernel;

#endif
