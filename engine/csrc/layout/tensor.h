/* Where the channels, pixels, rows and images of a tensor lie. */
#ifndef TS_TENSOR_H
#define TS_TENSOR_H

#include "program.h"

/* A placed tensor: the description and the strides that follow from it. */
typedef struct {
    ts_tensor_desc desc;
    size_t element_bytes;
    size_t pixel_bytes; /* of one pixel of one block, or of one packed pixel */
    size_t row_bytes, plane_bytes, image_bytes;
    size_t interior; /* bytes from the start of an image to its first pixel inside the frame */
    int blocks;      /* planes: channel blocks, or 1 when packed */
} ts_tensor;

/* Fills everything but the description; -1 when it makes no sense. */
int ts_tensor_place(ts_tensor *tensor);

#endif
