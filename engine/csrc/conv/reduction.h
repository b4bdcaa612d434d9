/* The reduction of a convolution as the tile contract wants it: a list of byte offsets. */
#ifndef TS_REDUCTION_H
#define TS_REDUCTION_H

#include "conv/problem.h"

typedef struct {
    int32_t *offsets; /* [groups of the convolution][entries] bytes from the pixel of the first tap */
    ptrdiff_t *source; /* [count] each element's weight: elements from a filter's first one, or -1 for padding */
    int32_t *rows;    /* [kernel rows + 1] entries before each kernel row */
    int entries, count;
} ts_reduction;

/*
 * Entries for which a later array of weights (ts_conv_desc.rests) holds more than zeros are there again for it: pixels are
 * read twice where weights do not fit s8, and nowhere else.
 *
 * 0, or -1 when memory runs out or the offsets leave 32 bits. To be freed in either case.
 */
int ts_reduction_build(const ts_conv_problem *problem, ts_reduction *reduction);
/* Whether any of the filters [first, first + count) has a weight other than zero in an entry. */
int ts_reduction_has_weights(const ts_conv_problem *problem, const ts_reduction *reduction, int entry, int first, int count);
void ts_reduction_free(ts_reduction *reduction);

#endif
