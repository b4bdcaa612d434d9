#include "layout/tensor.h"

#include "kernels/contract.h"

enum { MAX_SIDE = 1 << 20 }; /* of a tensor: keeps every product of two sides well within 64 bits */

static int side_ok(int value, int least)
{
    return value >= least && value <= MAX_SIDE;
}

int ts_tensor_place(ts_tensor *tensor)
{
    const ts_tensor_desc *d = &tensor->desc;
    if ((unsigned)d->dtype > TS_BF16 || !side_ok(d->channels, 1) || !side_ok(d->height, 1) || !side_ok(d->width, 1) ||
        !side_ok(d->top, 0) || !side_ok(d->left, 0) || !side_ok(d->bottom, 0) || !side_ok(d->right, 0) ||
        !side_ok(d->images, 1) || d->zero < 0 || d->zero > 255)
        return -1;
    tensor->element_bytes = d->dtype == TS_U8 ? 1 : d->dtype == TS_BF16 ? 2 : 4;
    tensor->blocks = d->packed ? 1 : (d->channels + TS_GROUP - 1) / TS_GROUP;
    tensor->pixel_bytes = tensor->element_bytes * (size_t)(d->packed ? d->channels : TS_GROUP);
    tensor->row_bytes = tensor->pixel_bytes * (size_t)(d->left + d->width + d->right);
    tensor->plane_bytes = tensor->row_bytes * (size_t)(d->top + d->height + d->bottom);
    /* A packed row's last reduction entry reads a few bytes on: they belong to the image, so they hold numbers. */
    const size_t bytes = tensor->plane_bytes * (size_t)tensor->blocks + (d->packed ? TS_STEP_BYTES : 0);
    if (bytes > (size_t)INT32_MAX)
        return -1;
    tensor->image_bytes = (bytes + TS_ALIGN - 1) / TS_ALIGN * TS_ALIGN;
    tensor->interior = (size_t)d->top * tensor->row_bytes + (size_t)d->left * tensor->pixel_bytes;
    return 0;
}

size_t ts_image_bytes(const ts_tensor_desc *desc)
{
    ts_tensor tensor = {.desc = *desc};
    return ts_tensor_place(&tensor) ? 0 : tensor.image_bytes;
}
