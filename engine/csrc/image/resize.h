/*
 * Resize and crop of a decoded picture: only what is kept is computed. On the same pixels the result is bit-equal to Pillow's
 * resize of the whole picture, then crop: across the rows first, rounded to 8 bits, then down the columns.
 */
#ifndef TS_IMAGE_RESIZE_H
#define TS_IMAGE_RESIZE_H

#include "image/resampling.h"

typedef struct {
    ts_axis across, down;
    ts_filter filter;
} ts_resize_desc;

typedef struct {
    int left, top, right, bottom;
} ts_box;

typedef struct ts_resize ts_resize;

/* On the best kernel for these CPU features. Null without memory. */
ts_resize *ts_resize_new(const ts_resize_desc *desc, uint32_t features);
void ts_resize_free(ts_resize *resize);

/* The pixels of the picture that are read. */
ts_box ts_resize_box(const ts_resize *resize);

/*
 * Takes rows of the picture, `pixels` being its pixel (box.left, top), TS_IN_PIXEL bytes a pixel. Rows outside of the box are
 * passed over; each row of the box must be taken once before ts_resize_finish.
 */
void ts_resize_take(ts_resize *resize, const uint8_t *pixels, ptrdiff_t stride, int top, int rows);

/* Whether every row was taken, as far as their number tells. */
int ts_resize_complete(const ts_resize *resize);

/* Writes the result, [down.outputs][across.outputs][TS_OUT_PIXEL] without gaps. */
void ts_resize_finish(const ts_resize *resize, uint8_t *out);

#endif
