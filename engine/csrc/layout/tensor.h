/* Where the channels, pixels, rows and images of a tensor lie. */
#ifndef TS_TENSOR_H
#define TS_TENSOR_H

#include "program.h"

/* A placed tensor: the description and the strides that follow from it. */
typedef struct {
    ts_tensor_desc desc;
    size_t element_bytes;
    size_t pixel_bytes; /* from pixel to pixel */
    size_t row_bytes, plane_bytes, image_bytes;
    size_t phase_bytes; /* from phase to phase; 0 without phases */
    size_t interior; /* bytes from the start of an image to its first pixel inside the frame */
    int blocks;      /* planes of one image */
    int groups;      /* groups of TS_GROUP channels, the last of which may have spare lanes; 0 when packed */
    ptrdiff_t *group_offsets; /* [groups] bytes from channel 0 of a pixel to the first channel of a group */
} ts_tensor;

/* Sets everything that follows from the description but the group offsets; -1 when it makes no sense. */
int ts_tensor_place(ts_tensor *tensor);

/* A placed tensor with its group offsets, or null when memory runs out. */
ts_tensor *ts_tensor_new(const ts_tensor *placed);
void ts_tensor_free(ts_tensor *tensor);

/* All channels side by side, and too few for a group: steps that work on groups cannot take it. */
static inline int ts_is_packed(const ts_tensor *tensor)
{
    return tensor->desc.block % TS_GROUP != 0;
}

/* Bytes from channel 0 of a pixel to another of its channels. */
static inline size_t ts_channel_offset(const ts_tensor *tensor, int channel)
{
    const int block = tensor->desc.block;
    return (size_t)(channel / block) * tensor->plane_bytes + (size_t)(channel % block) * tensor->element_bytes;
}

static inline int ts_same_shape(const ts_tensor *a, const ts_tensor *b)
{
    return a->desc.channels == b->desc.channels && a->desc.height == b->desc.height && a->desc.width == b->desc.width &&
           !ts_is_packed(a) && !ts_is_packed(b);
}

#endif
