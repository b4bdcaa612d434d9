/* Kernels that quantise a bfloat16 tensor for the integer layers behind it. */
#ifndef TS_QUANTISE_KERNELS_H
#define TS_QUANTISE_KERNELS_H

#include "kernels/contract.h"

/* `scale`: to units of the output; `low` and `high` clamp the stored result and lie within [0, 255]. */
typedef struct {
    float scale, low, high;
    int zero;
} ts_quantise_parameters;

typedef struct {
    const char *name;
    uint32_t features;
    /* out[i] = clamp(round(scale * in[i]) + zero) for `pixels` x 16 values; not-a-number becomes `low`. */
    void (*run)(const ts_quantise_parameters *parameters, const uint8_t *in, uint8_t *out, int pixels);
} ts_quantise_kernel;

/* Null where there is none for these CPU features. */
const ts_quantise_kernel *ts_find_quantise_kernel(uint32_t features);

#endif
