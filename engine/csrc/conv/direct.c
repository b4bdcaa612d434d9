/* Direct convolution: the packed weights of a panel in the order of the reduction. Takes everything. */
#include "conv/conv.h"
#include "conv/reduction.h"
#include "conv/rows.h"
#include "layout/bf16.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    ts_rows rows;
    ts_conv_ending ending;
    int32_t *offsets;       /* [groups of the convolution][entries] */
    int entries;
    int row_entries;        /* reduction entries of one kernel row */
    uint8_t *weights;       /* in the program's region */
    size_t panel_bytes;
    size_t row_bytes;       /* of one kernel row in a panel */
} direct;

static int takes(const ts_conv_problem *problem)
{
    return problem->kernel->conv.packing == TS_PACK_DWORD;
}

static void direct_free(void *pointer)
{
    direct *data = pointer;
    if (!data)
        return;
    ts_conv_ending_free(&data->ending);
    free(data->offsets);
    free(data);
}

/* One element of the packed panel; `at` counts elements. */
static void put_weight(ts_dtype dtype, uint8_t *panel, size_t at, const void *weights, size_t index)
{
    if (dtype == TS_F32)
        memcpy(panel + 4 * at, (const float *)weights + index, 4);
    else if (dtype == TS_BF16)
        ts_bf16_store(panel + 2 * at, ((const float *)weights)[index]);
    else
        panel[at] = (uint8_t)((const int8_t *)weights)[index];
}

static int pack_weights(ts_program *program, const ts_conv_problem *problem, direct *data, const ts_reduction *reduction)
{
    const ts_dtype dtype = problem->source->desc.dtype;
    const int kernel_groups = problem->kernel->conv.groups, width = kernel_groups * TS_GROUP; /* channels of a panel */
    const int dword = 4 / ts_element_bytes(dtype), panels = ts_conv_panels(problem, width);
    data->panel_bytes = (size_t)reduction->count * (size_t)width * (size_t)ts_element_bytes(dtype);
    data->row_bytes = data->panel_bytes / (size_t)problem->desc->kernel_h;
    const size_t bytes = (size_t)problem->desc->groups * (size_t)panels * data->panel_bytes;
    data->weights = ts_region_take(&program->weights, bytes);
    if (!data->weights)
        return -1;
    program->weight_bytes += bytes;
    for (int channel = 0; channel < problem->target->desc.channels; channel++) {
        const int oc = channel % problem->outputs;
        uint8_t *panel = data->weights + (size_t)(channel / problem->outputs * panels + oc / width) * data->panel_bytes;
        const int group = oc % width / TS_GROUP, lane = oc % TS_GROUP;
        const size_t base = (size_t)channel * (size_t)problem->filter;
        for (int k = 0; k < reduction->count; k++) {
            const size_t at = (((size_t)(k / dword) * (size_t)kernel_groups + (size_t)group) * TS_GROUP + (size_t)lane) *
                                  (size_t)dword + (size_t)(k % dword);
            if (reduction->source[k] >= 0)
                put_weight(dtype, panel, at, problem->desc->weights, base + (size_t)reduction->source[k]);
        }
    }
    return 0;
}

static void reduce(const void *pointer, ts_tile *tile, int panel, int from, int to)
{
    const direct *data = pointer;
    tile->offsets = data->offsets + panel / data->rows.panels * data->entries + from * data->row_entries;
    tile->entries = (to - from) * data->row_entries;
    tile->weights = data->weights + (size_t)panel * data->panel_bytes + (size_t)from * data->row_bytes;
}

static int build(ts_program *program, const ts_conv_problem *problem, ts_step *step)
{
    direct *data = step->data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a convolution");
    if (ts_conv_ending_build(program, problem, problem->kernel->conv.groups * TS_GROUP, &data->ending))
        return -1;
    ts_reduction reduction = {0};
    const int failed = ts_reduction_build(problem, &reduction) || pack_weights(program, problem, data, &reduction);
    data->offsets = reduction.offsets;
    data->entries = reduction.entries;
    data->row_entries = reduction.entries / problem->desc->kernel_h;
    free(reduction.source);
    if (failed)
        return ts_fail(program, "out of memory for the weights of a convolution");
    data->rows = ts_rows_of(problem, &problem->kernel->conv, data->panel_bytes);
    data->rows.epilogue = &data->ending.epilogue;
    data->rows.reduce = reduce;
    step->kernel = problem->kernel->name;
    return 0;
}

static void run(const ts_step *step, const ts_scope *scope)
{
    ts_rows_run(step, scope, &((const direct *)step->data)->rows);
}

const ts_conv_algorithm ts_conv_direct = {"direct", takes, build, run, direct_free};
