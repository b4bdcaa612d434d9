/* Kernels that add two u8 tensors into a third: a residual addition that no convolution could take. */
#ifndef TS_ADD_KERNELS_H
#define TS_ADD_KERNELS_H

#include "kernels/contract.h"

/* Scales to units of the output; `low` and `high` clamp the stored result and lie within [0, 255]. */
typedef struct {
    float a_scale, b_scale, low, high;
    int a_zero, b_zero, out_zero;
} ts_add_parameters;

/* out[i] = clamp(round(a_scale * (a[i] - a_zero) + b_scale * (b[i] - b_zero)) + out_zero) for `pixels` x 16 bytes. */
typedef void (*ts_add_fn)(const ts_add_parameters *parameters, const uint8_t *a, const uint8_t *b, uint8_t *out,
                          int pixels);

typedef struct {
    const char *name;
    uint32_t features;
    ts_add_fn run;
} ts_add_kernel;

/* The preferred kernel for these CPU features; never null. */
const ts_add_kernel *ts_find_add_kernel(uint32_t features);

#endif
