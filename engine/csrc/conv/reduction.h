/* The reduction of a convolution as the tile contract wants it: a list of byte offsets. */
#ifndef TS_REDUCTION_H
#define TS_REDUCTION_H

#include "conv/problem.h"

typedef struct {
    int32_t *offsets; /* [groups of the convolution][entries] bytes from the pixel of the first tap */
    int32_t *source;  /* [count] where each element comes from: an index into one filter's [I][H][W], or -1 for padding */
    int entries, count;
} ts_reduction;

/* 0, or -1 when memory runs out or the offsets leave 32 bits. To be freed in either case. */
int ts_reduction_build(const ts_conv_problem *problem, ts_reduction *reduction);
void ts_reduction_free(ts_reduction *reduction);

#endif
