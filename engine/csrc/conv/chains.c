/* Convolutions with kernels that add products in 16 bits (TS_PACK_CHAINS): the reduction of every panel is chains of its own. */
#include "conv/chain_forming.h"
#include "conv/conv.h"
#include "conv/reduction.h"
#include "conv/rows.h"

#include <stdlib.h>
#include <string.h>

enum { DWORD_BYTES = 4 * TS_GROUP };

/* The lists of one panel and where each kernel row begins in them. */
typedef struct {
    ts_member_list chains[TS_CHAIN];
    const int32_t *rows[TS_CHAIN]; /* [kernel rows + 1], in members */
} chained_panel;

typedef struct {
    ts_rows rows;
    ts_conv_ending ending;
    chained_panel *panels; /* [groups of the convolution * panels] */
} chained;

static int takes(const ts_conv_problem *problem)
{
    return problem->kernel->conv.packing == TS_PACK_CHAINS;
}

static void chained_free(void *pointer)
{
    chained *data = pointer;
    if (!data)
        return;
    ts_conv_ending_free(&data->ending);
    free(data->panels);
    free(data);
}

/* Room for one panel while its chains grow. */
typedef struct {
    int8_t *dwords; /* [dwords][TS_GROUP][4] */
    int32_t *offsets;
    ts_chains chains;
    int32_t *rows[TS_CHAIN];
} workspace;

static void free_workspace(workspace *w)
{
    free(w->dwords);
    free(w->offsets);
    for (int i = 0; i < TS_CHAIN; i++) {
        free(w->chains.members[i]);
        free(w->chains.weights[i]);
        free(w->rows[i]);
    }
}

static int new_workspace(workspace *w, size_t dwords, size_t rows)
{
    *w = (workspace){.dwords = malloc(dwords * DWORD_BYTES), .offsets = malloc(dwords * sizeof *w->offsets)};
    int failed = !w->dwords || !w->offsets;
    for (int i = 0; i < TS_CHAIN; i++) {
        w->chains.members[i] = malloc(2 * dwords * sizeof *w->chains.members[i]);
        w->chains.weights[i] = malloc(2 * dwords * DWORD_BYTES);
        w->rows[i] = malloc((rows + 1) * sizeof *w->rows[i]);
        failed = failed || !w->chains.members[i] || !w->chains.weights[i] || !w->rows[i];
    }
    return failed ? -1 : 0;
}

/* Offsets and weights of panel `inner` of a group of the convolution, in the order of the reduction. */
static void gather_dwords(const ts_conv_problem *problem, const ts_reduction *reduction, int group, int inner, workspace *w)
{
    const int8_t *weights = (const int8_t *)problem->desc->weights + (size_t)group * (size_t)problem->outputs * (size_t)problem->filter;
    const int first = inner * TS_GROUP, dwords = reduction->count / 4;
    for (int i = 0; i < dwords; i++)
        w->offsets[i] = reduction->offsets[group * reduction->entries + i / 2] + i % 2 * 4;
    memset(w->dwords, 0, (size_t)reduction->count * TS_GROUP);
    for (int lane = 0; lane < TS_GROUP && first + lane < problem->outputs; lane++) {
        const int8_t *source = weights + (size_t)(first + lane) * (size_t)problem->filter;
        for (int k = 0; k < reduction->count; k++)
            if (reduction->source[k] >= 0)
                w->dwords[(k / 4 * TS_GROUP + lane) * 4 + k % 4] = source[reduction->source[k]];
    }
}

/* Chains within kernel rows where rows may be left out, else across all of them. */
static int chain_rows(const ts_rows *rows, const ts_reduction *reduction, workspace *w)
{
    const int parts = rows->skip_padding ? rows->kernel_h : 1;
    memset(w->chains.counts, 0, sizeof w->chains.counts);
    for (int row = 0; row <= rows->kernel_h; row++) {
        for (int i = 0; i < TS_CHAIN; i++)
            w->rows[i][row] = w->chains.counts[i];
        if (row >= parts)
            continue;
        const int from = 2 * reduction->rows[row], to = 2 * reduction->rows[parts > 1 ? row + 1 : rows->kernel_h];
        if (ts_form_chains(w->dwords + (size_t)from * DWORD_BYTES, w->offsets + from, to - from, &w->chains))
            return -1;
    }
    return 0;
}

static const void *keep(ts_program *program, const void *source, size_t bytes)
{
    void *target = ts_weights_take(program->weights, bytes);
    return target ? ts_weights_keep(program->weights, memcpy(target, source, bytes), bytes) : NULL;
}

static int pack_panel(ts_program *program, const ts_rows *rows, const ts_reduction *reduction, workspace *w, chained_panel *panel)
{
    if (chain_rows(rows, reduction, w))
        return -1;
    for (int i = 0; i < TS_CHAIN; i++) {
        const size_t count = (size_t)w->chains.counts[i];
        panel->rows[i] = keep(program, w->rows[i], (size_t)(rows->kernel_h + 1) * sizeof *w->rows[i]);
        panel->chains[i] = (ts_member_list){.members = keep(program, w->chains.members[i], count * sizeof(ts_member)),
                                            .weights = keep(program, w->chains.weights[i], count * DWORD_BYTES),
                                            .count = (int)count};
        if (!panel->rows[i] || !panel->chains[i].members || !panel->chains[i].weights)
            return -1;
    }
    return 0;
}

static int pack_panels(ts_program *program, const ts_conv_problem *problem, chained *data, const ts_reduction *reduction)
{
    const int panels = data->rows.conv_groups * data->rows.panels;
    workspace w;
    int failed = new_workspace(&w, (size_t)reduction->count / 4, (size_t)data->rows.kernel_h);
    data->panels = calloc((size_t)panels, sizeof *data->panels);
    failed = failed || !data->panels;
    for (int panel = 0; !failed && panel < panels; panel++) {
        gather_dwords(problem, reduction, panel / data->rows.panels, panel % data->rows.panels, &w);
        failed = pack_panel(program, &data->rows, reduction, &w, &data->panels[panel]);
    }
    free_workspace(&w);
    return failed ? -1 : 0;
}

static void reduce(const void *pointer, ts_tile *tile, int panel, int from, int to)
{
    const chained_panel *lists = &((const chained *)pointer)->panels[panel];
    for (int i = 0; i < TS_CHAIN; i++) {
        const ts_member_list *list = &lists->chains[i];
        const int32_t *rows = lists->rows[i];
        tile->chains[i] = (ts_member_list){.members = list->members + rows[from],
                                           .weights = list->weights + (size_t)rows[from] * DWORD_BYTES,
                                           .count = rows[to] - rows[from]};
    }
}

static int build(ts_program *program, const ts_conv_problem *problem, ts_step *step)
{
    chained *data = step->data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a convolution");
    if (ts_conv_ending_build(program, problem, TS_GROUP, &data->ending))
        return -1;
    ts_reduction reduction = {0};
    int failed = ts_reduction_build(problem, &reduction);
    data->rows = ts_rows_of(problem, &problem->kernel->conv, (size_t)reduction.count * TS_GROUP);
    data->rows.epilogue = &data->ending.epilogue;
    data->rows.reduce = reduce;
    failed = failed || pack_panels(program, problem, data, &reduction);
    ts_reduction_free(&reduction);
    if (failed)
        return ts_fail(program, "out of memory for the weights of a convolution");
    step->kernel = problem->kernel->name;
    return 0;
}

static void run(const ts_step *step, const ts_scope *scope)
{
    ts_rows_run(step, scope, &((const chained *)step->data)->rows);
}

const ts_conv_algorithm ts_conv_chains = {"chains", takes, build, run, chained_free};
