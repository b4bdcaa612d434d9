#include "image/resize.h"

#include "kernels/table.h"

#include <stdlib.h>

enum { BEHIND = 64 }; /* bytes that kernels may read, or write, behind a row */

struct ts_resize {
    ts_resample_kernel kernel;
    ts_resampling across, down;
    ts_box box;
    int taken;         /* rows */
    ptrdiff_t stride;  /* of `middle` */
    uint8_t *middle;   /* the rows of the box, resized across */
};

ts_resize *ts_resize_new(const ts_resize_desc *desc, uint32_t features)
{
    ts_resize *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->kernel = ts_find_kernel(TS_RESAMPLING, TS_U8, features)->resample;
    if (ts_resampling_init(&r->across, &desc->across, desc->filter) == 0 &&
        ts_resampling_init(&r->down, &desc->down, desc->filter) == 0) {
        ts_resampling_span(&r->across, &r->box.left, &r->box.right);
        ts_resampling_span(&r->down, &r->box.top, &r->box.bottom);
        ts_resampling_shift(&r->across, r->box.left);
        ts_resampling_shift(&r->down, r->box.top);
        r->stride = (ptrdiff_t)desc->across.outputs * TS_OUT_PIXEL + BEHIND;
        r->middle = malloc((size_t)(r->box.bottom - r->box.top) * (size_t)r->stride);
        if (r->middle)
            return r;
    }
    ts_resize_free(r);
    return NULL;
}

void ts_resize_free(ts_resize *r)
{
    if (!r)
        return;
    ts_resampling_free(&r->across);
    ts_resampling_free(&r->down);
    free(r->middle);
    free(r);
}

ts_box ts_resize_box(const ts_resize *r)
{
    return r->box;
}

void ts_resize_take(ts_resize *r, const uint8_t *pixels, ptrdiff_t stride, int top, int rows)
{
    const int first = top > r->box.top ? top : r->box.top;
    const int end = top + rows < r->box.bottom ? top + rows : r->box.bottom;
    if (first >= end)
        return;
    r->kernel.across(&r->across, pixels + (first - top) * stride, stride, r->middle + (first - r->box.top) * r->stride, r->stride,
                     end - first);
    r->taken += end - first;
}

int ts_resize_complete(const ts_resize *r)
{
    return r->taken == r->box.bottom - r->box.top;
}

void ts_resize_finish(const ts_resize *r, uint8_t *out)
{
    const int bytes = r->across.outputs * TS_OUT_PIXEL;
    for (int row = 0; row < r->down.outputs; row++)
        r->kernel.down(&r->down, row, r->middle, r->stride, out + (ptrdiff_t)row * bytes, bytes);
}
