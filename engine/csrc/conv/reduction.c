#include "conv/reduction.h"

#include <stdlib.h>

/* Consecutive elements: the columns and channels of one kernel row where pixels are packed, else one group of channels of one tap. */
typedef struct {
    int runs, groups; /* groups: of channels, of one tap */
    int length;       /* elements */
    int entries;
} run_shape;

static run_shape shape_of(const ts_conv_problem *problem, int per_entry)
{
    const ts_conv_desc *desc = problem->desc;
    const int packed = ts_is_packed(problem->source), groups = packed ? 1 : ts_ceil_div(problem->inputs, TS_GROUP);
    const int length = packed ? desc->kernel_w * problem->inputs : TS_GROUP;
    return (run_shape){.runs = packed ? desc->kernel_h : desc->kernel_h * desc->kernel_w * groups,
                       .groups = groups, .length = length, .entries = ts_ceil_div(length, per_entry)};
}

static int place_run(const ts_conv_problem *problem, run_shape shape, int run, int per_entry, ts_reduction *reduction)
{
    const ts_conv_desc *desc = problem->desc;
    const ts_tensor *source = problem->source;
    const int packed = ts_is_packed(source), group = run % shape.groups, tap = run / shape.groups;
    const int row = packed ? tap : tap / desc->kernel_w, column = packed ? 0 : tap % desc->kernel_w;
    const ptrdiff_t pixel = row * desc->dilation_h * (ptrdiff_t)source->row_bytes + column * desc->dilation_w * (ptrdiff_t)source->pixel_bytes;
    for (int g = 0; g < desc->groups; g++) {
        const ptrdiff_t start = pixel + (ptrdiff_t)ts_channel_offset(source, g * problem->inputs + group * TS_GROUP);
        if (start + shape.entries * TS_STEP_BYTES > INT32_MAX)
            return -1;
        for (int e = 0; e < shape.entries; e++)
            reduction->offsets[g * reduction->entries + run * shape.entries + e] = (int32_t)start + e * TS_STEP_BYTES;
    }
    for (int i = 0; i < shape.entries * per_entry; i++) {
        const int x = packed ? i / problem->inputs : column;
        const int channel = packed ? i % problem->inputs : group * TS_GROUP + i;
        const int outside = i >= shape.length || channel >= problem->inputs;
        reduction->source[run * shape.entries * per_entry + i] =
            outside ? -1 : (channel * desc->kernel_h + row) * desc->kernel_w + x;
    }
    return 0;
}

/*
 * Kernel rows, then columns, then channels, so that the window of a row of pixels stays in L1. The order is the same for
 * every C0, and so are sums of floats.
 */
int ts_reduction_build(const ts_conv_problem *problem, ts_reduction *reduction)
{
    const int per_entry = TS_STEP_BYTES / (int)problem->source->element_bytes;
    const run_shape shape = shape_of(problem, per_entry);
    reduction->entries = shape.runs * shape.entries;
    reduction->count = reduction->entries * per_entry;
    reduction->offsets = malloc((size_t)problem->desc->groups * (size_t)reduction->entries * sizeof *reduction->offsets);
    reduction->source = malloc((size_t)reduction->count * sizeof *reduction->source);
    if (!reduction->offsets || !reduction->source)
        return -1;
    for (int run = 0; run < shape.runs; run++)
        if (place_run(problem, shape, run, per_entry, reduction))
            return -1;
    return 0;
}

void ts_reduction_free(ts_reduction *reduction)
{
    free(reduction->offsets);
    free(reduction->source);
}
