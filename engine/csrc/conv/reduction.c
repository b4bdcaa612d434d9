#include "conv/reduction.h"

#include <stdlib.h>

/* Consecutive elements: the columns and channels of one kernel row where pixels are packed, else one group of channels of one tap. */
typedef struct {
    int runs, groups; /* groups: of channels, of one tap */
    int length;       /* elements */
    int entries;
} run_shape;

static run_shape shape_of(const ts_conv_problem *problem, int elements)
{
    const ts_conv_desc *desc = problem->desc;
    const int packed = ts_is_packed(problem->source), groups = packed ? 1 : ts_ceil_div(problem->inputs, TS_GROUP);
    const int length = packed ? desc->kernel_w * problem->inputs : TS_GROUP;
    return (run_shape){.runs = packed ? desc->kernel_h : desc->kernel_h * desc->kernel_w * groups,
                       .groups = groups, .length = length, .entries = ts_ceil_div(length, elements)};
}

static int place_run(const ts_conv_problem *problem, run_shape shape, int run, int elements, ts_reduction *reduction)
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
    for (int i = 0; i < shape.entries * elements; i++) {
        const int x = packed ? i / problem->inputs : column;
        const int channel = packed ? i % problem->inputs : group * TS_GROUP + i;
        const int outside = i >= shape.length || channel >= problem->inputs;
        reduction->source[run * shape.entries * elements + i] =
            outside ? -1 : ((ptrdiff_t)channel * desc->kernel_h + row) * desc->kernel_w + x;
    }
    return 0;
}

static int allocate(ts_reduction *reduction, int groups, int entries, int elements, int kernel_rows)
{
    reduction->entries = entries;
    reduction->count = entries * elements;
    reduction->offsets = malloc((size_t)groups * (size_t)entries * sizeof *reduction->offsets);
    reduction->source = malloc((size_t)reduction->count * sizeof *reduction->source);
    reduction->rows = malloc(((size_t)kernel_rows + 1) * sizeof *reduction->rows);
    return reduction->offsets && reduction->source && reduction->rows ? 0 : -1;
}

/*
 * Kernel rows, then columns, then channels, so that the window of a row of pixels stays in L1. The order is the same for
 * every C0, and so are sums of floats.
 */
static int build_once(const ts_conv_problem *problem, int elements, ts_reduction *reduction)
{
    const int kernel_h = problem->desc->kernel_h;
    const run_shape shape = shape_of(problem, elements);
    if (allocate(reduction, problem->desc->groups, shape.runs * shape.entries, elements, kernel_h))
        return -1;
    for (int run = 0; run < shape.runs; run++)
        if (place_run(problem, shape, run, elements, reduction))
            return -1;
    for (int row = 0; row <= kernel_h; row++)
        reduction->rows[row] = row * (reduction->entries / kernel_h);
    return 0;
}

static int per_entry(const ts_conv_problem *problem)
{
    return TS_STEP_BYTES / (int)problem->source->element_bytes;
}

static int is_zero(const ts_conv_problem *problem, size_t index)
{
    const void *weights = problem->desc->weights;
    return problem->source->desc.dtype == TS_U8 ? !((const int8_t *)weights)[index] : ((const float *)weights)[index] == 0;
}

/* `source`: as many elements as an entry has. */
static int has_weights(const ts_conv_problem *problem, const ptrdiff_t *source, int first, int count)
{
    for (int oc = first; oc < first + count; oc++)
        for (int i = 0; i < per_entry(problem); i++)
            if (source[i] >= 0 && !is_zero(problem, (size_t)oc * (size_t)problem->filter + (size_t)source[i]))
                return 1;
    return 0;
}

int ts_reduction_has_weights(const ts_conv_problem *problem, const ts_reduction *reduction, int entry, int first, int count)
{
    return has_weights(problem, reduction->source + (size_t)entry * (size_t)per_entry(problem), first, count);
}

/* The elements of an entry for one of the arrays of weights. */
static void elements_of(const ts_conv_problem *problem, const ts_reduction *once, int entry, int part, ptrdiff_t source[TS_STEP_BYTES])
{
    const ptrdiff_t *first = once->source + (size_t)entry * TS_STEP_BYTES;
    for (int i = 0; i < TS_STEP_BYTES; i++)
        source[i] = first[i] < 0 ? -1 : first[i] + part * (ptrdiff_t)ts_weight_count(problem);
}

/* Lists what the kernel rows read, `part * once->entries + entry` each, and sets `rows`. Returns how many. */
static int choose_entries(const ts_conv_problem *problem, const ts_reduction *once, int *chosen, int32_t *rows)
{
    int count = 0;
    for (int row = 0; row < problem->desc->kernel_h; row++) {
        rows[row] = count;
        for (int part = 0; part <= problem->desc->rests; part++)
            for (int entry = once->rows[row]; entry < once->rows[row + 1]; entry++) {
                ptrdiff_t source[TS_STEP_BYTES];
                elements_of(problem, once, entry, part, source);
                if (!part || has_weights(problem, source, 0, problem->target->desc.channels))
                    chosen[count++] = part * once->entries + entry;
            }
    }
    rows[problem->desc->kernel_h] = count;
    return count;
}

static int repeat_entries(const ts_conv_problem *problem, const ts_reduction *once, ts_reduction *reduction)
{
    const int kernel_h = problem->desc->kernel_h, groups = problem->desc->groups;
    int *chosen = malloc((size_t)(problem->desc->rests + 1) * (size_t)once->entries * sizeof *chosen);
    int32_t *rows = malloc(((size_t)kernel_h + 1) * sizeof *rows);
    const int count = chosen && rows ? choose_entries(problem, once, chosen, rows) : 0;
    const int failed = !count || allocate(reduction, groups, count, TS_STEP_BYTES, kernel_h);
    for (int at = 0; !failed && at < count; at++) {
        const int entry = chosen[at] % once->entries, part = chosen[at] / once->entries;
        for (int g = 0; g < groups; g++)
            reduction->offsets[g * count + at] = once->offsets[g * once->entries + entry];
        elements_of(problem, once, entry, part, reduction->source + (size_t)at * TS_STEP_BYTES);
    }
    for (int row = 0; !failed && row <= kernel_h; row++)
        reduction->rows[row] = rows[row];
    free(chosen);
    free(rows);
    return failed ? -1 : 0;
}

int ts_reduction_build(const ts_conv_problem *problem, ts_reduction *reduction)
{
    if (!problem->desc->rests)
        return build_once(problem, per_entry(problem), reduction);
    ts_reduction once = {0};
    const int failed = build_once(problem, per_entry(problem), &once) || repeat_entries(problem, &once, reduction);
    ts_reduction_free(&once);
    return failed ? -1 : 0;
}

void ts_reduction_free(ts_reduction *reduction)
{
    free(reduction->offsets);
    free(reduction->source);
    free(reduction->rows);
}
