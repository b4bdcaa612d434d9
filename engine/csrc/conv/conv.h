/*
 * A convolution is built and run by the first algorithm of a list (conv.c) that takes it. Each algorithm is one file and
 * owns its data; what several need is in problem.h, reduction.h and rows.h.
 */
#ifndef TS_CONV_H
#define TS_CONV_H

#include "conv/problem.h"

typedef struct {
    const char *name;
    int (*takes)(const ts_conv_problem *problem);
    /* Sets the step's data, even where it fails, and its kernel's name. 0, or -1 after ts_fail. */
    int (*build)(ts_program *program, const ts_conv_problem *problem, ts_step *step);
    void (*run)(const ts_step *step, const ts_scope *scope);
    void (*free)(void *data);
} ts_conv_algorithm;

extern const ts_conv_algorithm ts_conv_depthwise, ts_conv_matrix, ts_conv_winograd, ts_conv_bf16_int16, ts_conv_chains, ts_conv_direct;

#endif
