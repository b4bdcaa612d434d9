/*
 * Kernels that resize pictures of 8-bit samples, one axis at a time, in fixed point: out = clamp((sum of weight * sample + 2^21) >> 22).
 * Sums wrap at 32 bits, which the whole sum fits in, so the order of the products changes nothing.
 */
#ifndef TS_RESAMPLING_H
#define TS_RESAMPLING_H

#include <stddef.h>
#include <stdint.h>

enum {
    TS_WEIGHT_BITS = 22, /* of a weight's fraction */
    TS_LOW_BITS = 11,    /* in which a weight is cut in halves that fit 16-bit products */
    TS_IN_PIXEL = 4,     /* bytes: red, green, blue and one that counts for nothing */
    TS_OUT_PIXEL = 3,
};

/* Weights of two neighbouring samples, each high * 2^11 + low with low in [0, 2^11). */
typedef struct {
    int16_t high[2], low[2];
} ts_tap_pair;

/* How the samples of an axis become outputs: output i reads taps[i] >= 1 samples from first[i] on. */
typedef struct {
    int outputs;
    int stride; /* pairs between the weights of two outputs; of an odd number of taps, the last pair's second weight is 0 */
    int32_t *first, *taps;
    ts_tap_pair *pairs;
} ts_resampling;

typedef struct {
    /* Pixels of TS_IN_PIXEL bytes in each row to pixels of TS_OUT_PIXEL; one more byte is written behind each row. */
    void (*across)(const ts_resampling *axis, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t out_stride, int rows);
    /* Rows of `bytes` bytes to one, the axis's `output`. Reads up to 63 bytes behind each row, and writes none behind `out`. */
    void (*down)(const ts_resampling *axis, int output, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, int bytes);
} ts_resample_kernel;

static inline int32_t ts_tap_weight(const ts_tap_pair *pairs, int tap)
{
    const ts_tap_pair *pair = pairs + tap / 2;
    return pair->high[tap % 2] * (1 << TS_LOW_BITS) + pair->low[tap % 2];
}

#endif
