/* Packing the weights of a convolution for kernels that add products in 16 bits (TS_PACK_CHAINS). */
#include "conv/chain_forming.h"
#include "conv/conv.h"

#include <stdlib.h>
#include <string.h>

enum { DWORD_BYTES = 4 * TS_GROUP };

/* Room for one panel while its chains grow. */
typedef struct {
    int8_t *dwords; /* [dwords][16 lanes][4] */
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

/* The weights of 16 output channels from `first` on, in the order of the reduction. */
static void gather_dwords(const ts_reduction *order, const int8_t *weights, int first, int outputs, int filter, int8_t *dwords)
{
    memset(dwords, 0, (size_t)order->count * TS_GROUP);
    for (int lane = 0; lane < TS_GROUP && first + lane < outputs; lane++) {
        const int8_t *source = weights + (size_t)(first + lane) * (size_t)filter;
        for (int k = 0; k < order->count; k++)
            if (order->source[k] >= 0)
                dwords[(k / 4 * TS_GROUP + lane) * 4 + k % 4] = source[order->source[k]];
    }
}

/* Chains within kernel rows where rows may be left out, else across all of them. */
static int chain_rows(const ts_conv *data, workspace *w, int dwords)
{
    const int parts = data->skip_padding ? data->kernel_h : 1;
    memset(w->chains.counts, 0, sizeof w->chains.counts);
    for (int row = 0; row <= data->kernel_h; row++) {
        for (int i = 0; i < TS_CHAIN; i++)
            w->rows[i][row] = w->chains.counts[i];
        if (row >= parts)
            continue;
        const int from = row * (dwords / parts);
        if (ts_form_chains(w->dwords + (size_t)from * DWORD_BYTES, w->offsets + from, dwords / parts, &w->chains))
            return -1;
    }
    return 0;
}

static const void *keep(ts_program *program, const void *source, size_t bytes)
{
    void *target = ts_region_take(&program->weights, bytes);
    program->weight_bytes += bytes;
    return target ? memcpy(target, source, bytes) : NULL;
}

static int pack_panel(ts_program *program, ts_conv *data, workspace *w, int dwords, ts_chained_panel *panel)
{
    if (chain_rows(data, w, dwords))
        return -1;
    for (int i = 0; i < TS_CHAIN; i++) {
        const size_t count = (size_t)w->chains.counts[i];
        panel->rows[i] = keep(program, w->rows[i], (size_t)(data->kernel_h + 1) * sizeof *w->rows[i]);
        panel->chains[i] = (ts_member_list){.members = keep(program, w->chains.members[i], count * sizeof(ts_member)),
                                            .weights = keep(program, w->chains.weights[i], count * DWORD_BYTES),
                                            .count = (int)count};
        if (!panel->rows[i] || !panel->chains[i].members || !panel->chains[i].weights)
            return -1;
    }
    return 0;
}

int ts_pack_chains(ts_program *program, ts_conv *data, const ts_reduction *order, const int8_t *weights, int outputs, int filter)
{
    const int dwords = order->count / 4;
    workspace w;
    int failed = new_workspace(&w, (size_t)dwords, (size_t)data->kernel_h);
    data->chained = calloc((size_t)data->groups * (size_t)data->panels, sizeof *data->chained);
    failed = failed || !data->chained;
    for (int i = 0; !failed && i < dwords; i++)
        w.offsets[i] = data->offsets[i / 2] + i % 2 * 4;
    for (int panel = 0; !failed && panel < data->groups * data->panels; panel++) {
        const int group = panel / data->panels, inner = panel % data->panels;
        gather_dwords(order, weights + (size_t)group * (size_t)outputs * (size_t)filter, inner * TS_GROUP, outputs, filter, w.dwords);
        failed = pack_panel(program, data, &w, dwords, &data->chained[panel]);
    }
    free_workspace(&w);
    data->panel_bytes = (size_t)order->count * TS_GROUP;
    return failed ? -1 : 0;
}
