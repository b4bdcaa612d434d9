/* Kernels of the steps that are no convolutions. Each works on rows of one group of TS_GROUP channels; steps are bytes between pixels. */
#ifndef TS_ELEMENTWISE_H
#define TS_ELEMENTWISE_H

#include <stddef.h>
#include <stdint.h>

#include "layout/dtype.h"

enum { TS_WIDE_GROUPS = 4 };

/* output[p] = maximum over `tap_count` >= 1 taps of input[p * step + taps[i]], for p in [0, pixels). Taps in bytes. */
typedef void (*ts_maximum_fn)(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                              ptrdiff_t output_step, int pixels);

/* Scales to units of the output; `low` and `high` clamp the stored result and lie within [0, 255]. */
typedef struct {
    float a_scale, b_scale, low, high;
    int a_zero, b_zero, out_zero;
    ptrdiff_t a_step, b_step, out_step;
} ts_addition;

/* out = clamp(round(a_scale * (a - a_zero) + b_scale * (b - b_zero)) + out_zero), all u8. */
typedef void (*ts_addition_fn)(const ts_addition *addition, const uint8_t *a, const uint8_t *b, uint8_t *out, int pixels);

/* `scale`: to units of the output; `low` and `high` clamp the stored result and lie within [0, 255]. */
typedef struct {
    float scale, low, high;
    int zero;
    ptrdiff_t in_step, out_step;
} ts_quantisation;

/* out = clamp(round(scale * in) + zero), u8; not-a-number becomes `low`. */
typedef void (*ts_quantisation_fn)(const ts_quantisation *quantisation, const uint8_t *in, uint8_t *out, int pixels);

#endif
