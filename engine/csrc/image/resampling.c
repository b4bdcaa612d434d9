#include "image/resampling.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    double support; /* half the filter's width, in outputs */
    double (*weight)(double distance);
} filter_shape;

static double triangle(double distance)
{
    return distance < 1.0 ? 1.0 - distance : 0.0;
}

/* Keys, Cubic convolution interpolation (1981), with a = -1/2. */
static double cubic(double distance)
{
    const double a = -0.5;
    if (distance < 1.0)
        return ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1;
    if (distance < 2.0)
        return (((distance - 5) * distance + 8) * distance - 4) * a;
    return 0.0;
}

static const filter_shape filters[] = {[TS_BILINEAR] = {1.0, triangle}, [TS_BICUBIC] = {2.0, cubic}};

static int32_t to_fixed(double weight)
{
    const double scaled = weight * (1 << TS_WEIGHT_BITS);
    return (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

static void store_weight(ts_tap_pair *pairs, int tap, int32_t weight)
{
    const int32_t low = weight & ((1 << TS_LOW_BITS) - 1);
    pairs[tap / 2].low[tap % 2] = (int16_t)low;
    pairs[tap / 2].high[tap % 2] = (int16_t)((weight - low) / (1 << TS_LOW_BITS));
}

/*
 * The filter widens with the scale, so that every sample counts: that is the antialiasing. Samples that are means already have
 * widened it before: variances of filters add, that of a triangle of width w is w^2 / 6, that of a mean of n is (n^2 - 1) / 12.
 */
static double widened(const ts_axis *axis)
{
    const double scale = axis->extent / (double)axis->resized, merged = axis->merged;
    const double width = merged > 1 ? sqrt(fmax(scale * scale - (1 - 1 / (merged * merged)) / 2, 0)) : scale;
    return width < 1 ? 1 : width;
}

static int stride_of(const ts_axis *axis, const filter_shape *shape)
{
    const double taps = 2 * ceil(shape->support * widened(axis)) + 1;
    return ((int)fmin(taps, axis->samples) + 1) / 2;
}

/* Writes the weights of one output; `weights` has room for all of them as they are. */
static void place_output(ts_resampling *r, const ts_axis *axis, const filter_shape *shape, int output, double *weights)
{
    const double scale = axis->extent / (double)axis->resized, width = widened(axis);
    const double centre = ((double)(axis->start + output) + 0.5) * scale, reach = shape->support * width;
    const int first = (int)fmax(centre - reach + 0.5, 0), end = (int)fmin(centre + reach + 0.5, axis->samples);
    double sum = 0;
    for (int tap = 0; tap < end - first; tap++) {
        weights[tap] = shape->weight(fabs((tap + first - centre + 0.5) * (1.0 / width)));
        sum += weights[tap];
    }
    r->first[output] = first;
    r->taps[output] = end - first;
    ts_tap_pair *pairs = r->pairs + (ptrdiff_t)output * r->stride;
    for (int tap = 0; tap < end - first; tap++)
        store_weight(pairs, tap, to_fixed(weights[tap] / sum));
}

int ts_resampling_init(ts_resampling *r, const ts_axis *axis, ts_filter filter)
{
    const filter_shape *shape = &filters[filter];
    const int stride = stride_of(axis, shape);
    const size_t outputs = (size_t)axis->outputs;
    double *weights = malloc(2 * (size_t)stride * sizeof *weights);
    *r = (ts_resampling){axis->outputs, stride, malloc(outputs * sizeof *r->first), malloc(outputs * sizeof *r->taps),
                         calloc(outputs * (size_t)stride, sizeof *r->pairs)};
    const int failed = !weights || !r->first || !r->taps || !r->pairs;
    for (int output = 0; output < axis->outputs && !failed; output++)
        place_output(r, axis, shape, output, weights);
    free(weights);
    if (failed)
        ts_resampling_free(r);
    return failed ? -1 : 0;
}

void ts_resampling_free(ts_resampling *r)
{
    free(r->first);
    free(r->taps);
    free(r->pairs);
    *r = (ts_resampling){0};
}

void ts_resampling_span(const ts_resampling *r, int *first, int *end)
{
    /* Both rise from output to output. */
    *first = r->first[0];
    *end = r->first[r->outputs - 1] + r->taps[r->outputs - 1];
}

void ts_resampling_shift(ts_resampling *r, int origin)
{
    for (int output = 0; output < r->outputs; output++)
        r->first[output] -= origin;
}
