#pragma GCC optimize("O3") /* whatever the rest is compiled with: a ResNet-50 has 4 GMAC */

#include "graph.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

/* One tile of a convolution as a matrix product: ROWS output channels x COLUMNS pixels. */
enum { ROWS = 6, COLUMNS = 16 };

typedef float vector __attribute__((vector_size(32), aligned(4)));

static int row_blocks(const layer *l) {
    return (l->out_channels + ROWS - 1) / ROWS;
}

static size_t depth(const layer *l) {
    return (size_t)l->channels * l->kernel_h * l->kernel_w;
}

/* Weights [out_channels, depth] as blocks [depth, ROWS]. */
static void pack_weights(const layer *l, const float *weights, float *packed) {
    size_t length = depth(l);
    for (int block = 0; block < row_blocks(l); block++) {
        for (size_t k = 0; k < length; k++) {
            for (int r = 0; r < ROWS; r++) {
                int channel = block * ROWS + r;
                *packed++ = channel < l->out_channels ? weights[channel * length + k] : 0.0f;
            }
        }
    }
}

static bool layer_fits(const graph *g, const layer *l) {
    size_t from = (size_t)l->channels * l->height * l->width;
    size_t to = (size_t)l->out_channels * l->out_height * l->out_width;
    if (l->source < 0 || l->source >= g->tensor_count || l->target < 0 || l->target >= g->tensor_count || from == 0 ||
        to == 0 || l->source == l->target || l->residual >= g->tensor_count)
        return false;
    if (g->tensor_sizes[l->source] != from || (g->tensor_sizes[l->target] != 0 && g->tensor_sizes[l->target] != to))
        return false;
    if (l->residual >= 0 && g->tensor_sizes[l->residual] != to)
        return false;
    return l->op != CONV || (l->weight_at + depth(l) * l->out_channels <= g->parameter_count &&
                             l->bias_at + l->out_channels <= g->parameter_count);
}

bool graph_prepare(graph *g) {
    size_t packed = 0;
    g->tensors = calloc(g->tensor_count, sizeof *g->tensors);
    g->tensor_sizes = calloc(g->tensor_count, sizeof *g->tensor_sizes);
    if (g->tensor_count < 1 || g->result < 0 || g->result >= g->tensor_count)
        return false;
    g->tensor_sizes[0] = g->input_size;
    for (int i = 0; i < g->layer_count; i++) {
        layer *l = &g->layers[i];
        if (!layer_fits(g, l))
            return false;
        g->tensor_sizes[l->target] = (size_t)l->out_channels * l->out_height * l->out_width;
        packed += l->op == CONV ? (size_t)row_blocks(l) * ROWS * depth(l) : 0;
    }
    if (g->tensor_sizes[g->result] != g->result_size)
        return false;
    for (int i = 1; i < g->tensor_count; i++)
        g->tensors[i] = malloc(g->tensor_sizes[i] * sizeof(float));
    g->packed = malloc((packed + 1) * sizeof(float));
    float *at = g->packed;
    for (int i = 0; i < g->layer_count; i++) {
        layer *l = &g->layers[i];
        if (l->op != CONV)
            continue;
        pack_weights(l, g->parameters + l->weight_at, at);
        l->weights = at;
        l->bias = g->parameters + l->bias_at;
        at += (size_t)row_blocks(l) * ROWS * depth(l);
    }
    return true;
}

/* The patches of COLUMNS output pixels from `first` on, as [depth, COLUMNS]. */
static void gather(const layer *l, const float *source, int first, float *panel) {
    int pixels = l->out_height * l->out_width;
    int ys[COLUMNS], xs[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        int pixel = first + c < pixels ? first + c : pixels - 1;
        ys[c] = pixel / l->out_width * l->stride_h - l->top;
        xs[c] = pixel % l->out_width * l->stride_w - l->left;
    }
    bool whole = l->kernel_h == 1 && l->kernel_w == 1 && l->stride_h == 1 && l->stride_w == 1 && first + COLUMNS <= pixels;
    for (int channel = 0; channel < l->channels; channel++) {
        const float *plane = source + (size_t)channel * l->height * l->width;
        if (whole) {
            memcpy(panel, plane + first, COLUMNS * sizeof(float));
            panel += COLUMNS;
            continue;
        }
        for (int ky = 0; ky < l->kernel_h; ky++) {
            for (int kx = 0; kx < l->kernel_w; kx++) {
                for (int c = 0; c < COLUMNS; c++) {
                    int y = ys[c] + ky, x = xs[c] + kx;
                    bool inside = y >= 0 && y < l->height && x >= 0 && x < l->width;
                    *panel++ = inside ? plane[y * l->width + x] : 0.0f;
                }
            }
        }
    }
}

static void multiply(const float *weights, const float *panel, size_t length, float out[ROWS][COLUMNS]) {
    vector sums[ROWS][2];
    memset(sums, 0, sizeof sums);
    for (size_t k = 0; k < length; k++, weights += ROWS, panel += COLUMNS) {
        vector low = *(const vector *)panel, high = *(const vector *)(panel + 8);
        for (int r = 0; r < ROWS; r++) {
            sums[r][0] += weights[r] * low;
            sums[r][1] += weights[r] * high;
        }
    }
    memcpy(out, sums, sizeof sums);
}

static void convolve(const layer *l, const float *source, const float *residual, float *target) {
    size_t length = depth(l);
    int pixels = l->out_height * l->out_width;
    float *panel = malloc(length * COLUMNS * sizeof(float));
    for (int first = 0; first < pixels; first += COLUMNS) {
        int columns = pixels - first < COLUMNS ? pixels - first : COLUMNS;
        gather(l, source, first, panel);
        for (int block = 0; block < row_blocks(l); block++) {
            float out[ROWS][COLUMNS];
            multiply(l->weights + (size_t)block * ROWS * length, panel, length, out);
            for (int r = 0; r < ROWS && block * ROWS + r < l->out_channels; r++) {
                int channel = block * ROWS + r;
                size_t at = (size_t)channel * pixels + first;
                for (int c = 0; c < columns; c++) {
                    float sum = out[r][c] + l->bias[channel] + (residual ? residual[at + c] : 0.0f);
                    target[at + c] = l->relu && sum < 0 ? 0.0f : sum;
                }
            }
        }
    }
    free(panel);
}

static void pool(const layer *l, const float *source, float *target) {
    for (int channel = 0; channel < l->channels; channel++) {
        const float *plane = source + (size_t)channel * l->height * l->width;
        for (int oy = 0; oy < l->out_height; oy++) {
            for (int ox = 0; ox < l->out_width; ox++) {
                float best = -FLT_MAX, sum = 0;
                for (int ky = 0; ky < l->kernel_h; ky++) {
                    for (int kx = 0; kx < l->kernel_w; kx++) {
                        int y = oy * l->stride_h - l->top + ky, x = ox * l->stride_w - l->left + kx;
                        if (y < 0 || y >= l->height || x < 0 || x >= l->width)
                            continue;
                        float value = plane[y * l->width + x];
                        best = value > best ? value : best;
                        sum += value;
                    }
                }
                *target++ = l->op == MAXPOOL ? best : sum / (float)(l->kernel_h * l->kernel_w);
            }
        }
    }
}

void graph_run(graph *g, const float *input, float *result) {
    for (int i = 0; i < g->layer_count; i++) {
        const layer *l = &g->layers[i];
        const float *source = l->source == 0 ? input : g->tensors[l->source];
        const float *residual = l->residual < 0 ? NULL : l->residual == 0 ? input : g->tensors[l->residual];
        if (l->op == CONV)
            convolve(l, source, residual, g->tensors[l->target]);
        else
            pool(l, source, g->tensors[l->target]);
    }
    memcpy(result, g->result == 0 ? input : g->tensors[g->result], g->result_size * sizeof(float));
}

void graph_free(graph *g) {
    for (int i = 1; g->tensors && i < g->tensor_count; i++)
        free(g->tensors[i]);
    free(g->tensors);
    free(g->tensor_sizes);
    free(g->packed);
    free(g->parameters);
    free(g->layers);
}
