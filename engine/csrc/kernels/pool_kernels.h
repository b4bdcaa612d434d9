/* Maximum pooling kernels: rows of output pixels whose window lies inside the input. */
#ifndef TS_POOL_KERNELS_H
#define TS_POOL_KERNELS_H

#include "kernels/contract.h"

/*
 * output[p] = maximum over `tap_count` >= 1 taps of input[p * step + taps[i]], 16 channels each, for p in [0, pixels).
 * Offsets and step in bytes; output pixels are contiguous.
 */
typedef void (*ts_max_fn)(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                          int pixels);

typedef struct {
    const char *name;
    uint32_t features;
    ts_dtype dtype;
    ts_max_fn run;
} ts_max_kernel;

/* The preferred kernel of a dtype for these CPU features; never null. */
const ts_max_kernel *ts_find_max_kernel(ts_dtype dtype, uint32_t features);

#endif
