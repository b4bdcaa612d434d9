/* Direct convolution: the packed weights of a panel in the order of the reduction. Takes everything. */
#include "conv/conv.h"
#include "conv/reduction.h"
#include "conv/rows.h"
#include "layout/bf16.h"

#include <stdlib.h>
#include <string.h>

/* In the program's region. Entries whose weights are all zeros in a panel are left out: blocks that were pruned, and most of later arrays. */
typedef struct {
    int32_t *offsets;
    int32_t *rows;          /* [kernel rows + 1] entries before each kernel row */
    uint8_t *weights;
} direct_panel;

typedef struct {
    ts_rows rows;
    ts_conv_ending ending;
    direct_panel *panels;   /* [groups of the convolution * panels] */
    size_t entry_bytes;     /* of packed weights */
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
    free(data->panels);
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

/* Output channels [first, first + count), all of one group of the convolution. */
typedef struct {
    int group, first, count;
} channel_range;

/* Lists the entries that have weights for these channels, and sets `rows`. Returns how many. */
static int list_entries(const ts_conv_problem *problem, const ts_reduction *reduction, channel_range channels, int *list, int32_t *rows)
{
    int count = 0;
    for (int row = 0; row < problem->desc->kernel_h; row++) {
        rows[row] = count;
        for (int entry = reduction->rows[row]; entry < reduction->rows[row + 1]; entry++)
            if (ts_reduction_has_weights(problem, reduction, entry, channels.first, channels.count))
                list[count++] = entry;
    }
    rows[problem->desc->kernel_h] = count;
    return count;
}

/* Packs the weights of one channel, `lane` of the panel. */
static void put_channel(const ts_conv_problem *problem, const ts_reduction *reduction, const int *list, int count, int channel, int lane,
                        uint8_t *panel)
{
    const ts_dtype dtype = problem->source->desc.dtype;
    const int dword = 4 / ts_element_bytes(dtype), per_entry = 2 * dword, width = problem->kernel->conv.groups * TS_GROUP;
    const size_t base = (size_t)channel * (size_t)problem->filter;
    for (int at = 0; at < count; at++)
        for (int i = 0; i < per_entry; i++) {
            const ptrdiff_t source = reduction->source[(size_t)list[at] * (size_t)per_entry + (size_t)i];
            const size_t to = ((size_t)(2 * at + i / dword) * (size_t)width + (size_t)lane) * (size_t)dword + (size_t)(i % dword);
            if (source >= 0)
                put_weight(dtype, panel, to, problem->desc->weights, base + (size_t)source);
        }
}

static int pack_panel(ts_program *program, const ts_conv_problem *problem, const ts_reduction *reduction, channel_range channels,
                      int *list, size_t entry_bytes, direct_panel *panel)
{
    panel->rows = ts_weights_take(program->weights, ((size_t)problem->desc->kernel_h + 1) * sizeof *panel->rows);
    if (!panel->rows)
        return -1;
    const int count = list_entries(problem, reduction, channels, list, panel->rows);
    panel->offsets = ts_weights_take(program->weights, (size_t)count * sizeof *panel->offsets);
    panel->weights = ts_weights_take(program->weights, (size_t)count * entry_bytes);
    if (!panel->offsets || !panel->weights)
        return -1;
    for (int at = 0; at < count; at++)
        panel->offsets[at] = reduction->offsets[channels.group * reduction->entries + list[at]];
    for (int lane = 0; lane < channels.count; lane++)
        put_channel(problem, reduction, list, count, channels.first + lane, lane, panel->weights);
    panel->weights = ts_weights_keep(program->weights, panel->weights, (size_t)count * entry_bytes);
    return 0;
}

static int pack_panels(ts_program *program, const ts_conv_problem *problem, const ts_reduction *reduction, direct *data)
{
    const int width = problem->kernel->conv.groups * TS_GROUP, panels = ts_conv_panels(problem, width), all = problem->desc->groups * panels;
    int *list = malloc((size_t)reduction->entries * sizeof *list);
    data->panels = calloc((size_t)all, sizeof *data->panels);
    int failed = !list || !data->panels;
    for (int panel = 0; !failed && panel < all; panel++) {
        const int inner = panel % panels * width, left = problem->outputs - inner, group = panel / panels;
        const channel_range channels = {group, group * problem->outputs + inner, left < width ? left : width};
        failed = pack_panel(program, problem, reduction, channels, list, data->entry_bytes, &data->panels[panel]);
    }
    free(list);
    return failed ? -1 : 0;
}

static void reduce(const void *pointer, ts_tile *tile, int panel, int from, int to)
{
    const direct *data = pointer;
    const direct_panel *p = &data->panels[panel];
    tile->offsets = p->offsets + p->rows[from];
    tile->entries = p->rows[to] - p->rows[from];
    tile->weights = p->weights + (size_t)p->rows[from] * data->entry_bytes;
}

static int build(ts_program *program, const ts_conv_problem *problem, ts_step *step)
{
    direct *data = step->data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a convolution");
    if (ts_conv_ending_build(program, problem, problem->kernel->conv.groups * TS_GROUP, &data->ending))
        return -1;
    ts_reduction reduction = {0};
    data->entry_bytes = (size_t)(TS_STEP_BYTES * problem->kernel->conv.groups * TS_GROUP);
    const int failed = ts_reduction_build(problem, &reduction) || pack_panels(program, problem, &reduction, data);
    data->rows = ts_rows_of(problem, &problem->kernel->conv, (size_t)reduction.entries * data->entry_bytes);
    ts_reduction_free(&reduction);
    if (failed)
        return ts_fail(program, "out of memory for the weights of a convolution");
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
