/*
 * Depthwise convolution: one filter for each channel. A panel is a group of channels, its reduction the taps of the kernel, and
 * no channel is added to another: what merged groups would multiply by zeros, 15 products of 16, is left out.
 */
#include "conv/conv.h"
#include "conv/rows.h"
#include "layout/bf16.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    ts_rows rows;
    ts_conv_ending ending;
    int32_t *offsets; /* [panels][taps], in the program's region like the weights */
    uint8_t *weights; /* [panels][taps][TS_DEPTHWISE_BYTES] */
    int taps, kernel_w;
} depthwise;

static int takes(const ts_conv_problem *problem)
{
    return ts_is_depthwise(problem->desc, problem->source, problem->target);
}

static void depthwise_free(void *pointer)
{
    depthwise *data = pointer;
    if (!data)
        return;
    ts_conv_ending_free(&data->ending);
    free(data);
}

static void put_weight(const ts_conv_problem *problem, size_t index, uint8_t *target)
{
    if (problem->source->desc.dtype == TS_U8) {
        const int32_t weight = ts_weight_sum(problem, index);
        memcpy(target, &weight, sizeof weight);
        return;
    }
    float weight = ((const float *)problem->desc->weights)[index];
    if (problem->source->desc.dtype == TS_BF16) {
        uint16_t half;
        ts_bf16_store(&half, weight);
        weight = ts_bf16_load(&half);
    }
    memcpy(target, &weight, sizeof weight);
}

static void pack(const ts_conv_problem *problem, depthwise *data)
{
    const ts_conv_desc *desc = problem->desc;
    const ts_tensor *source = problem->source;
    for (int channel = 0; channel < source->desc.channels; channel++)
        for (int tap = 0; tap < data->taps; tap++) {
            const int row = tap / desc->kernel_w, column = tap % desc->kernel_w;
            const size_t entry = (size_t)(channel / TS_GROUP) * (size_t)data->taps + (size_t)tap;
            const ptrdiff_t pixel = row * desc->dilation_h * (ptrdiff_t)source->row_bytes + column * desc->dilation_w * (ptrdiff_t)source->pixel_bytes;
            data->offsets[entry] = (int32_t)(pixel + source->group_offsets[channel / TS_GROUP]);
            put_weight(problem, (size_t)channel * (size_t)data->taps + (size_t)tap,
                       data->weights + entry * TS_DEPTHWISE_BYTES + (size_t)(channel % TS_GROUP) * 4);
        }
}

static void reduce(const void *pointer, ts_tile *tile, int panel, int from, int to)
{
    const depthwise *data = pointer;
    const size_t first = (size_t)panel * (size_t)data->taps + (size_t)(from * data->kernel_w);
    tile->offsets = data->offsets + first;
    tile->entries = (to - from) * data->kernel_w;
    tile->weights = data->weights + first * TS_DEPTHWISE_BYTES;
}

static int build(ts_program *program, const ts_conv_problem *given, ts_step *step)
{
    /* One group of as many outputs as inputs, as far as panels are concerned. */
    ts_conv_desc desc = *given->desc;
    ts_conv_problem problem = *given;
    desc.groups = 1;
    problem.desc = &desc;
    problem.outputs = problem.target->desc.channels;
    const ts_kernel *kernel = ts_find_kernel(TS_DEPTHWISE, problem.source->desc.dtype, problem.features);
    depthwise *data = step->data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a convolution");
    if (problem.source->image_bytes > INT32_MAX)
        return ts_fail(program, "an image of more than 2 GiB");
    if (ts_conv_ending_build(program, &problem, TS_GROUP, &data->ending))
        return -1;
    data->taps = desc.kernel_h * desc.kernel_w;
    data->kernel_w = desc.kernel_w;
    const size_t entries = (size_t)problem.source->groups * (size_t)data->taps;
    data->offsets = ts_weights_take(program->weights, entries * sizeof *data->offsets);
    data->weights = ts_weights_take(program->weights, entries * TS_DEPTHWISE_BYTES);
    if (!data->offsets || !data->weights)
        return ts_fail(program, "out of memory for the weights of a convolution");
    pack(&problem, data);
    data->weights = ts_weights_keep(program->weights, data->weights, entries * TS_DEPTHWISE_BYTES);
    data->rows = ts_rows_of(&problem, &kernel->conv, 0);
    data->rows.rows_first = 0; /* neighbouring rows of one group share pixels; weights are next to nothing */
    data->rows.epilogue = &data->ending.epilogue;
    data->rows.reduce = reduce;
    step->kernel = kernel->name;
    return 0;
}

static void run(const ts_step *step, const ts_scope *scope)
{
    ts_rows_run(step, scope, &((const depthwise *)step->data)->rows);
}

const ts_conv_algorithm ts_conv_depthwise = {"depthwise", takes, build, run, depthwise_free};
