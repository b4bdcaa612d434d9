/* Which samples of an axis make each output of a resize, and with which weights: those that Pillow computes. */
#ifndef TS_IMAGE_RESAMPLING_H
#define TS_IMAGE_RESAMPLING_H

#include "kernels/resampling.h"

typedef enum { TS_BILINEAR = 0, TS_BICUBIC = 1 } ts_filter;

/* One axis of a picture, and what is wanted of it. */
typedef struct {
    int samples;     /* that there are */
    double extent;   /* of them, from the first, to be resized to `resized`; at most `samples` */
    int64_t resized; /* outputs of the whole axis */
    int64_t start;   /* first output that is wanted */
    int outputs;     /* that are wanted; start + outputs <= resized */
    int merged;      /* samples of the original in each: 1, or what a decoder divided the picture by */
} ts_axis;

/* `first` counts from the axis's first sample. Frees with ts_resampling_free. 0, or -1 without memory. */
int ts_resampling_init(ts_resampling *resampling, const ts_axis *axis, ts_filter filter);
void ts_resampling_free(ts_resampling *resampling);

/* The samples that are read: [*first, *end). */
void ts_resampling_span(const ts_resampling *resampling, int *first, int *end);

/* Counts `first` from another sample. */
void ts_resampling_shift(ts_resampling *resampling, int origin);

#endif
