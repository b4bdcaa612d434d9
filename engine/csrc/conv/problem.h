/* A convolution that is to be built, and the part of its data that no algorithm can do without. */
#ifndef TS_PROBLEM_H
#define TS_PROBLEM_H

#include "kernels/table.h"
#include "run/execution.h"

typedef struct {
    const ts_conv_desc *desc;
    const ts_tensor *source, *target, *residual; /* residual: null when there is none */
    uint32_t features;
    const ts_kernel *kernel; /* the preferred TS_CONV row for its dtype and width */
    int outputs;             /* output channels of one group of the convolution */
    int inputs;              /* input channels of one group of the convolution */
    int filter;              /* weights of one output channel */
} ts_conv_problem;

/* Whether every channel is convolved by itself. Images of packed channels are not. */
static inline int ts_is_depthwise(const ts_conv_desc *desc, const ts_tensor *source, const ts_tensor *target)
{
    return desc->groups > 1 && desc->groups == source->desc.channels && desc->groups == target->desc.channels && !ts_is_packed(source);
}

/* Weights of one array: those of u8 sources are the sums of `rests` + 1 arrays, one after another. */
static inline size_t ts_weight_count(const ts_conv_problem *problem)
{
    return (size_t)problem->target->desc.channels * (size_t)problem->filter;
}

/* One weight of a u8 source as a whole. */
static inline int ts_weight_sum(const ts_conv_problem *problem, size_t index)
{
    int sum = 0;
    for (int part = 0; part <= problem->desc->rests; part++)
        sum += ((const int8_t *)problem->desc->weights)[(size_t)part * ts_weight_count(problem) + index];
    return sum;
}

/* How a convolution ends. */
typedef struct {
    float *scale; /* padded to whole panels, group by group; so is bias */
    void *bias;
    ts_epilogue epilogue;
} ts_conv_ending;

static inline int ts_ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

/* Panels of one group of the convolution; a panel is `channels` output channels wide. */
static inline int ts_conv_panels(const ts_conv_problem *problem, int channels)
{
    return ts_ceil_div(problem->outputs, channels);
}

/*
 * Bias, scales and epilogue for panels of `channels` output channels. Refuses sums that could leave 32 bits, and outputs
 * that could leave what cvtps2dq represents. 0, or -1 after ts_fail.
 */
int ts_conv_ending_build(ts_program *program, const ts_conv_problem *problem, int channels, ts_conv_ending *ending);
void ts_conv_ending_free(ts_conv_ending *ending);

#endif
