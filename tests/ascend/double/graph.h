/* A small network and how to compute it: plain C, no AscendCL. */
#ifndef DOUBLE_GRAPH_H
#define DOUBLE_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

typedef enum { CONV, MAXPOOL, AVGPOOL } operator;

typedef struct {
    operator op;
    int source, target, residual; /* tensor numbers; residual -1: none */
    int channels, height, width;  /* of the source */
    int out_channels, out_height, out_width;
    int kernel_h, kernel_w, stride_h, stride_w, top, left;
    bool relu;
    size_t weight_at, bias_at; /* in floats */
    const float *weights, *bias; /* weights packed for the kernel */
} layer;

typedef struct {
    int tensor_count, layer_count, result;
    size_t result_size, input_size;
    layer *layers;
    float *parameters, *packed;
    size_t parameter_count;
    float **tensors; /* one image; so one run at a time */
    size_t *tensor_sizes;
} graph;

/* Packs the weights and allocates the tensors. Returns false when layers and parameters do not fit together. */
bool graph_prepare(graph *g);
/* input: [channels, height, width]; result: result_size floats. */
void graph_run(graph *g, const float *input, float *result);
void graph_free(graph *g);

#endif
