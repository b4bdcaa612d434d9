#include "layout/tensor.h"

#include "kernels/contract.h"

#include <stdlib.h>

enum { MAX_SIDE = 1 << 20 }; /* of a tensor: keeps every product of two sides well within 64 bits */

static int side_ok(int value, int least)
{
    return value >= least && value <= MAX_SIDE;
}

int ts_tensor_place(ts_tensor *tensor)
{
    const ts_tensor_desc *d = &tensor->desc;
    if ((unsigned)d->dtype >= TS_DTYPES || !side_ok(d->channels, 1) || !side_ok(d->height, 1) || !side_ok(d->width, 1) ||
        !side_ok(d->top, 0) || !side_ok(d->left, 0) || !side_ok(d->bottom, 0) || !side_ok(d->right, 0) ||
        !side_ok(d->images, 1) || !side_ok(d->block, 1) || d->zero < 0 || d->zero > 255)
        return -1;
    if (d->block % TS_GROUP && d->block != d->channels)
        return -1;
    const int packed = ts_is_packed(tensor), apart = d->phases ? 2 : 1;
    if (packed && d->phases)
        return -1;
    const int top = (d->top + apart - 1) / apart, left = (d->left + apart - 1) / apart; /* of each phase */
    const int rows = top + (d->height + d->bottom + apart - 1) / apart, columns = left + (d->width + d->right + apart - 1) / apart;
    tensor->element_bytes = (size_t)ts_element_bytes(d->dtype);
    tensor->blocks = (d->channels + d->block - 1) / d->block;
    tensor->groups = packed ? 0 : (d->channels + TS_GROUP - 1) / TS_GROUP;
    tensor->pixel_bytes = tensor->element_bytes * (size_t)d->block;
    tensor->row_bytes = tensor->pixel_bytes * (size_t)columns;
    tensor->plane_bytes = tensor->row_bytes * (size_t)rows * (size_t)(apart * apart);
    tensor->phase_bytes = d->phases ? tensor->plane_bytes / 4 : 0;
    /* A packed row's last reduction entry reads a few bytes on: they belong to the image, so they hold numbers. */
    const size_t bytes = tensor->plane_bytes * (size_t)tensor->blocks + (packed ? TS_STEP_BYTES : 0);
    if (bytes > (size_t)INT32_MAX)
        return -1;
    tensor->image_bytes = (bytes + TS_ALIGN - 1) / TS_ALIGN * TS_ALIGN;
    tensor->interior = (size_t)top * tensor->row_bytes + (size_t)left * tensor->pixel_bytes;
    return 0;
}

ts_tensor *ts_tensor_new(const ts_tensor *placed)
{
    ts_tensor *tensor = malloc(sizeof *tensor);
    if (!tensor)
        return NULL;
    *tensor = *placed;
    tensor->group_offsets = malloc(((size_t)tensor->groups + 1) * sizeof *tensor->group_offsets);
    if (!tensor->group_offsets) {
        free(tensor);
        return NULL;
    }
    for (int group = 0; group < tensor->groups; group++)
        tensor->group_offsets[group] = (ptrdiff_t)ts_channel_offset(tensor, group * TS_GROUP);
    return tensor;
}

void ts_tensor_free(ts_tensor *tensor)
{
    free(tensor->group_offsets);
    free(tensor);
}

size_t ts_image_bytes(const ts_tensor_desc *desc)
{
    ts_tensor tensor = {.desc = *desc};
    return ts_tensor_place(&tensor) ? 0 : tensor.image_bytes;
}

int ts_image_framed(const ts_tensor_desc *desc)
{
    ts_tensor tensor = {.desc = *desc};
    if (ts_tensor_place(&tensor))
        return 0;
    const int spare_groups = !ts_is_packed(&tensor) && tensor.groups * TS_GROUP < tensor.blocks * desc->block;
    const int uneven = desc->phases && (desc->height % 2 || desc->width % 2);
    return desc->top || desc->left || desc->bottom || desc->right || spare_groups || uneven;
}
