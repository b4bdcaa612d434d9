/* Packing the weights of a convolution for kernels that add products in 16 bits (TS_PACK_TWINS). */
#include "conv.h"
#include "pairing.h"

#include <stdlib.h>
#include <string.h>

enum { DWORD_BYTES = 4 * TS_LANES };

/* Room for one panel while its lists grow. */
typedef struct {
    int8_t *dwords; /* [dwords][16 lanes][4] */
    int32_t *offsets;
    ts_member *members[2]; /* twins, singles */
    int8_t *weights[2];
    int32_t *rows[2];
} workspace;

static void free_workspace(workspace *w)
{
    free(w->dwords);
    free(w->offsets);
    for (int i = 0; i < 2; i++) {
        free(w->members[i]);
        free(w->weights[i]);
        free(w->rows[i]);
    }
}

static int new_workspace(workspace *w, size_t dwords, size_t rows)
{
    *w = (workspace){.dwords = malloc(dwords * DWORD_BYTES), .offsets = malloc(dwords * sizeof *w->offsets)};
    int failed = !w->dwords || !w->offsets;
    for (int i = 0; i < 2; i++) {
        w->members[i] = malloc(2 * dwords * sizeof *w->members[i]);
        w->weights[i] = malloc(2 * dwords * DWORD_BYTES);
        w->rows[i] = malloc((rows + 1) * sizeof *w->rows[i]);
        failed = failed || !w->members[i] || !w->weights[i] || !w->rows[i];
    }
    return failed ? -1 : 0;
}

/* The weights of 16 output channels from `first` on, in the order of the reduction. */
static void gather_dwords(const ts_reduction *order, const int8_t *weights, int first, int outputs, int filter, int8_t *dwords)
{
    memset(dwords, 0, (size_t)order->count * TS_LANES);
    for (int lane = 0; lane < TS_LANES && first + lane < outputs; lane++) {
        const int8_t *source = weights + (size_t)(first + lane) * (size_t)filter;
        for (int k = 0; k < order->count; k++)
            if (order->source[k] >= 0)
                dwords[(k / 4 * TS_LANES + lane) * 4 + k % 4] = source[order->source[k]];
    }
}

/* Pairs within kernel rows where rows may be left out, else across all of them. */
static int pair_rows(const ts_conv *data, workspace *w, int dwords, int counts[2])
{
    const int parts = data->skip_padding ? data->kernel_h : 1;
    counts[0] = counts[1] = 0;
    for (int row = 0; row <= data->kernel_h; row++) {
        w->rows[0][row] = counts[0];
        w->rows[1][row] = counts[1];
        if (row >= parts)
            continue;
        int found[2];
        const int from = row * (dwords / parts);
        if (ts_pair_dwords(w->dwords + (size_t)from * DWORD_BYTES, w->offsets + from, dwords / parts,
                           w->members[0] + counts[0], w->weights[0] + (size_t)counts[0] * DWORD_BYTES, &found[0],
                           w->members[1] + counts[1], w->weights[1] + (size_t)counts[1] * DWORD_BYTES, &found[1]))
            return -1;
        counts[0] += found[0];
        counts[1] += found[1];
    }
    return 0;
}

static const void *keep(ts_program *program, const void *source, size_t bytes)
{
    void *target = ts_region_take(&program->weights, bytes);
    program->weight_bytes += bytes;
    return target ? memcpy(target, source, bytes) : NULL;
}

static int keep_list(ts_program *program, const ts_conv *data, const workspace *w, int which, int count, ts_member_list *list,
                     const int32_t **rows)
{
    list->count = count;
    list->members = keep(program, w->members[which], (size_t)count * sizeof *list->members);
    list->weights = keep(program, w->weights[which], (size_t)count * DWORD_BYTES);
    *rows = keep(program, w->rows[which], (size_t)(data->kernel_h + 1) * sizeof **rows);
    return list->members && list->weights && *rows ? 0 : -1;
}

static int pack_panel(ts_program *program, ts_conv *data, workspace *w, int dwords, ts_paired_panel *panel)
{
    int counts[2];
    return pair_rows(data, w, dwords, counts) || keep_list(program, data, w, 0, counts[0], &panel->twins, &panel->twin_rows) ||
                   keep_list(program, data, w, 1, counts[1], &panel->singles, &panel->single_rows)
               ? -1
               : 0;
}

int ts_pack_twins(ts_program *program, ts_conv *data, const ts_reduction *order, const int8_t *weights, int outputs, int filter)
{
    const int dwords = order->count / 4;
    workspace w;
    int failed = new_workspace(&w, (size_t)dwords, (size_t)data->kernel_h);
    data->paired = calloc((size_t)data->groups * (size_t)data->panels, sizeof *data->paired);
    failed = failed || !data->paired;
    for (int i = 0; !failed && i < dwords; i++)
        w.offsets[i] = data->offsets[i / 2] + i % 2 * 4;
    for (int panel = 0; !failed && panel < data->groups * data->panels; panel++) {
        const int group = panel / data->panels, inner = panel % data->panels;
        gather_dwords(order, weights + (size_t)group * (size_t)outputs * (size_t)filter, inner * TS_LANES, outputs, filter, w.dwords);
        failed = pack_panel(program, data, &w, dwords, &data->paired[panel]);
    }
    free_workspace(&w);
    data->panel_bytes = (size_t)order->count * TS_LANES;
    return failed ? -1 : 0;
}
