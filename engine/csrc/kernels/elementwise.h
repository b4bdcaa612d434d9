/* Kernels of the steps that are no convolutions. Each works on rows of one group of TS_GROUP channels; steps are bytes between pixels. */
#ifndef TS_ELEMENTWISE_H
#define TS_ELEMENTWISE_H

#include <stddef.h>
#include <stdint.h>

#include "layout/dtype.h"
#include "program.h"

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

/* One of `factor` and `b` is null: sixteen factors for all pixels, or as many as there are values. */
typedef struct {
    float scale;
    int a_zero, b_zero, out_zero; /* of u8 values */
    ptrdiff_t a_step, b_step, out_step;
} ts_product;

/* out = a * factor[lane], or a * b * scale; u8 is rounded and saturated. All are of the row's dtype. */
typedef void (*ts_product_fn)(const ts_product *product, const uint8_t *a, const uint8_t *b, const float *factor, uint8_t *out,
                              int pixels);

typedef struct {
    ts_curve kind;
    float slope, offset; /* as in ts_curve_desc */
    ptrdiff_t in_step, out_step;
} ts_curve_row;

/* out = curve(in), floats. */
typedef void (*ts_curve_fn)(const ts_curve_row *row, const uint8_t *in, uint8_t *out, int pixels);

#endif
