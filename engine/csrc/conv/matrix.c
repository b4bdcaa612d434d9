/*
 * Convolutions on a matrix unit: tensors in blocks of 64 bytes on both sides, or a packed image. Contract and layout of
 * weights: kernels/matrix.h; how pixels become tiles: matrix_tiles.h.
 */
#include "conv/conv.h"
#include "conv/matrix_tiles.h"
#include "layout/bf16.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEAST_ACROSS = 11,           /* images that make tiles across images fuller than tiles of a 7x7 map */
    SMALL_MAP = 64,              /* output pixels up to which tiles across images pay */
    CACHED_STEPS = 2,            /* steps whose weights stay in L1 beside pixels and sums: 16 KB of panel */
    ROW_STEPS = 4,               /* steps up to which a whole panel stays in L1 while all pixels pass */
    WIDE_ROW_STEPS = 8,          /* the same where outputs are many more than inputs */
    APART_STEPS = 4,             /* steps up to which a block must be finished during both halves of the next */
    SUMS_BYTES = 2 * TS_MATRIX_SUMS * 4, /* of two blocks: where scratch begins. Lowered rows follow */
    RESIDENT_1X1 = 1 << 20,      /* bytes of weights that stay in L2 while pixels pass */
    RESIDENT_LARGER = 700 << 10, /* the same beside the windows of larger kernels */
};

typedef struct {
    const ts_matrix_kernel *kernel;
    ts_matrix_form form;
    ts_conv_ending ending;
    ts_tiling in_images, across; /* the second without tiles where it never pays */
    ts_lowering lowering;        /* of a packed image */
    uint8_t *weights;            /* in the program's region */
    size_t panel_bytes;
    int panels;
    int resident;                /* all weights stay in L2 */
} matrix;

static int suits(const ts_tensor *tensor, ts_dtype dtype, int block, int multiple)
{
    return tensor->desc.dtype == dtype && tensor->desc.block == block && tensor->desc.channels % multiple == 0;
}

/* In phases, a window of any size may go two pixels on, or one pixel alone through all of them. */
static int steps_in_phases(const ts_conv_desc *d)
{
    const int alone = d->kernel_h * d->kernel_w == 1 && !d->pad_top && !d->pad_left && d->stride_h == 1 && d->stride_w == 1;
    return alone || (d->stride_h == 2 && d->stride_w == 2 && d->dilation_h == 1 && d->dilation_w == 1);
}

static int takes(const ts_conv_problem *problem)
{
    const ts_dtype dtype = problem->source->desc.dtype;
    const ts_kernel *kernel = ts_find_kernel(TS_MATRIX, dtype, problem->features);
    if (!kernel || problem->desc->groups > 1 || (problem->source->desc.phases && !steps_in_phases(problem->desc)))
        return 0;
    const int block = kernel->matrix.block;
    return (ts_is_packed(problem->source) || suits(problem->source, dtype, block, block)) &&
           suits(problem->target, dtype, block, TS_MATRIX_CHANNELS) &&
           (!problem->residual || suits(problem->residual, dtype, block, TS_MATRIX_CHANNELS));
}

static void matrix_free(void *pointer)
{
    matrix *m = pointer;
    if (!m)
        return;
    ts_conv_ending_free(&m->ending);
    ts_tiling_free(&m->in_images);
    ts_tiling_free(&m->across);
    free(m);
}

/* Measured, see docs/performance.md: which operand streams from L2, and which stays in L1. */
static ts_matrix_form choose_form(const ts_conv_problem *problem, int steps, int images)
{
    const int wide = problem->outputs >= 4 * problem->inputs && images >= 4;
    if (steps <= CACHED_STEPS)
        return TS_MATRIX_2X2;
    return steps <= (wide ? WIDE_ROW_STEPS : ROW_STEPS) ? TS_MATRIX_1X4 : TS_MATRIX_2X2_STREAMED;
}

/* Where each channel of a panel stands: tile * 16 + column. */
static void list_places(const ts_matrix_kernel *kernel, int places[TS_MATRIX_CHANNELS])
{
    for (int i = 0; i < TS_MATRIX_CHANNELS; i++)
        places[kernel->channel(i / 16, i % 16)] = i;
}

/* Where the weight of byte `at` of the reduction lies in a panel, for the channel at `place`. */
static size_t weight_at(const matrix *m, int place, int at)
{
    const int tile = place / 16, column = place % 16, step = at / TS_MATRIX_BYTES, byte = at % TS_MATRIX_BYTES;
    return (size_t)(tile / 2) * (m->panel_bytes / 2) + (size_t)step * TS_MATRIX_STEP + (size_t)(tile % 2) * TS_MATRIX_TILE +
           (size_t)(byte / 4 * 64 + column * 4 + byte % 4);
}

static int pack_weights(ts_program *program, const ts_conv_problem *problem, const ts_matrix_order *order, matrix *m)
{
    const int taps = problem->desc->kernel_h * problem->desc->kernel_w, integer = problem->source->desc.dtype == TS_U8;
    const size_t bytes = (size_t)m->panels * m->panel_bytes;
    int places[TS_MATRIX_CHANNELS];
    list_places(m->kernel, places);
    m->weights = ts_weights_take(program->weights, bytes);
    if (!m->weights)
        return -1;
    for (int oc = 0; oc < problem->outputs; oc++) {
        uint8_t *panel = m->weights + (size_t)(oc / TS_MATRIX_CHANNELS) * m->panel_bytes;
        for (int i = 0; i < (problem->desc->rests + 1) * problem->filter; i++) {
            const int part = i / problem->filter, inner = i % problem->filter;
            const int byte = ts_matrix_byte(problem, inner / taps, inner % taps);
            const int step = order->at[part * order->once + byte / TS_MATRIX_BYTES];
            if (step < 0)
                continue;
            const size_t index = (size_t)part * ts_weight_count(problem) + (size_t)oc * (size_t)problem->filter + (size_t)inner;
            uint8_t *at = panel + weight_at(m, places[oc % TS_MATRIX_CHANNELS], step * TS_MATRIX_BYTES + byte % TS_MATRIX_BYTES);
            if (integer)
                *at = (uint8_t)((const int8_t *)problem->desc->weights)[index];
            else
                ts_bf16_store(at, ((const float *)problem->desc->weights)[index]);
        }
    }
    m->weights = ts_weights_keep(program->weights, m->weights, bytes);
    return 0;
}

/* Brings the values of every panel into the order of the kernel's columns. */
static void permute(const ts_matrix_kernel *kernel, void *values, int panels)
{
    uint8_t *panel = values, ordered[TS_MATRIX_CHANNELS][4];
    for (; panels > 0; panels--, panel += sizeof ordered) {
        for (int i = 0; i < TS_MATRIX_CHANNELS; i++)
            memcpy(ordered[i], panel + 4 * kernel->channel(i / 16, i % 16), 4);
        memcpy(panel, ordered, sizeof ordered);
    }
}

/* Whether a tile may read 16 images, and its places fit their type. */
static int fits_across(const ts_conv_problem *problem)
{
    const ts_tensor *tensors[] = {problem->source, problem->target, problem->residual};
    if (ts_is_packed(problem->source))
        return 0;
    for (int i = 0; i < 3; i++)
        if (tensors[i] && (tensors[i]->desc.images < TS_MATRIX_ROWS || tensors[i]->image_bytes > INT32_MAX / TS_MATRIX_ROWS))
            return 0;
    return problem->target->desc.height * problem->target->desc.width <= SMALL_MAP;
}

/* The reduction, its weights and its tiles. */
static int lay_out(ts_program *program, const ts_conv_problem *problem, const ts_matrix_order *order, matrix *m)
{
    m->form = choose_form(problem, order->steps, program->segment_images[program->segment_count - 1]);
    m->panel_bytes = 2 * (size_t)order->steps * TS_MATRIX_STEP;
    return pack_weights(program, problem, order, m) || ts_tiling_in_images(problem, order, &m->in_images) ||
           (fits_across(problem) && ts_tiling_across_images(problem, order, &m->across));
}

static int build(ts_program *program, const ts_conv_problem *problem, ts_step *step)
{
    const ts_kernel *kernel = ts_find_kernel(TS_MATRIX, problem->source->desc.dtype, problem->features);
    matrix *m = step->data = calloc(1, sizeof *m);
    if (!m)
        return ts_fail(program, "out of memory for a convolution");
    m->kernel = &kernel->matrix;
    m->panels = problem->outputs / TS_MATRIX_CHANNELS;
    ts_matrix_order order = {0};
    const int failed = ts_matrix_order_build(problem, &order) || lay_out(program, problem, &order, m);
    free(order.at);
    if (failed)
        return ts_fail(program, "out of memory for the weights of a convolution");
    const int larger = problem->desc->kernel_h * problem->desc->kernel_w > 1;
    m->resident = (size_t)m->panels * m->panel_bytes <= (larger ? RESIDENT_LARGER : RESIDENT_1X1);
    step->kernel = kernel->name;
    step->phases = 1;
    if (ts_conv_ending_build(program, problem, TS_MATRIX_CHANNELS, &m->ending))
        return -1;
    permute(m->kernel, m->ending.bias, m->panels);
    permute(m->kernel, m->ending.scale, m->panels);
    m->lowering = ts_lowering_of(problem);
    const size_t lowered = m->in_images.lowered ? 2 * TS_MATRIX_ROWS * m->lowering.row_bytes + TS_COPY : 0;
    const size_t scratch = SUMS_BYTES + lowered;
    program->scratch_bytes = program->scratch_bytes > scratch ? program->scratch_bytes : scratch;
    return 0;
}

/* ---- running ---- */

/* One thread's walk through its blocks: the block that is being computed, and the one before. */
typedef struct {
    const ts_step *step;
    const ts_scope *scope;
    const matrix *data;
    const ts_tiling *tiling;
    int width;         /* tiles of a block */
    int tiles, blocks; /* of all images */
    ts_matrix_block block[2];
    int current, begun;
    int32_t *sums[2];
} walk;

static ts_matrix_tile tile_at(const walk *w, int index, int panel)
{
    const ts_tiling *tiling = w->tiling;
    const ts_tile_plan *plan = &tiling->tiles[index % tiling->tile_count];
    const int image = w->scope->image + index / tiling->tile_count;
    const ts_step *step = w->step;
    const int group = panel * (TS_MATRIX_CHANNELS / TS_GROUP);
    return (ts_matrix_tile){
        .input = ts_pixels(step->source, w->scope, image) + plan->input,
        .output = ts_pixels(step->target, w->scope, image) + step->target->group_offsets[group] + plan->output,
        .residual = step->other ? ts_pixels(step->other, w->scope, image) + step->other->group_offsets[group] + plan->residual : NULL,
        .places = tiling->places + plan->first,
        .count = tiling->across ? w->scope->count : plan->count,
    };
}

/* A lowered tile reads its copy in scratch instead. */
static void lower_tile(const walk *w, int index, int slot, ts_matrix_tile *tile)
{
    const ts_tiling *tiling = w->tiling;
    const ts_lowering *lowering = &w->data->lowering;
    uint8_t *rows = w->scope->scratch + SUMS_BYTES + (size_t)slot * TS_MATRIX_ROWS * lowering->row_bytes;
    const int image = w->scope->image + index / tiling->tile_count;
    ts_lower(lowering, ts_pixels(w->step->source, w->scope, image), tiling->tiles[index % tiling->tile_count].position, rows);
    tile->input = rows;
}

static const ts_step_list *list_of(const walk *w, int index)
{
    return &w->tiling->lists[w->tiling->tiles[index % w->tiling->tile_count].list];
}

/* Tiles [first, first + count) of a panel, 1 or 2 of them with the same reduction. */
static void run_block(walk *w, int first, int count, int panel)
{
    const matrix *m = w->data;
    const ts_step_list *list = list_of(w, first);
    ts_matrix_block *block = &w->block[w->current], *before = w->begun ? &w->block[!w->current] : NULL;
    for (int i = 0; i < count; i++) {
        block->tiles[i] = tile_at(w, first + i, panel);
        if (w->tiling->lowered)
            lower_tile(w, first + i, i, &block->tiles[i]);
    }
    if (count == 1) {
        block->tiles[1] = block->tiles[0];
        block->tiles[1].count = 0;
    }
    block->input_step = w->tiling->input_step;
    block->steps = w->tiling->steps + list->first;
    block->step_count = list->count;
    block->weights = m->weights + (size_t)panel * m->panel_bytes;
    block->half_bytes = (ptrdiff_t)m->panel_bytes / 2;
    block->bias = (const uint8_t *)m->ending.bias + (size_t)panel * TS_MATRIX_CHANNELS * 4;
    block->output_plane = (ptrdiff_t)w->step->target->plane_bytes;
    block->residual_plane = w->step->other ? (ptrdiff_t)w->step->other->plane_bytes : 0;
    block->scale = m->ending.scale + (size_t)panel * TS_MATRIX_CHANNELS;
    block->epilogue = &m->ending.epilogue;
    block->sums = w->sums[w->current];
    m->kernel->multiply[m->form](block, before);
    w->begun = 1;
    w->current = !w->current;
}

/* The tiles of block `index`. Two tiles with different reductions share a block of work, not a call. */
static void run_tiles(walk *w, int index, int panel)
{
    const int first = index * w->width, left = w->tiles - first;
    if (w->width == 1 || left == 1) {
        run_block(w, first, 1, panel);
    } else if (list_of(w, first) == list_of(w, first + 1)) {
        run_block(w, first, 2, panel);
    } else {
        run_block(w, first, 1, panel);
        run_block(w, first + 1, 1, panel);
    }
}

/* A tile across images reads 16 of them, of which those that are not there must be room at least. */
static int goes_across(const ts_step *step, const ts_scope *scope)
{
    const ts_tensor_desc *in = &step->source->desc;
    const int first = in->local ? scope->image - scope->segment_image : scope->image;
    return ((const matrix *)step->data)->across.tile_count && scope->count >= LEAST_ACROSS && first + TS_MATRIX_ROWS <= in->images;
}

static walk walk_of(const ts_step *step, const ts_scope *scope)
{
    const matrix *m = step->data;
    const int across = goes_across(step, scope);
    walk w = {.step = step, .scope = scope, .data = m, .tiling = across ? &m->across : &m->in_images,
              .width = m->form == TS_MATRIX_1X4 ? 1 : 2};
    w.tiles = w.tiling->tile_count * (across ? 1 : scope->count);
    w.blocks = ts_ceil_div(w.tiles, w.width);
    w.sums[0] = w.sums[1] = (int32_t *)(void *)scope->scratch;
    if (m->form != TS_MATRIX_1X4 && m->in_images.lists[0].count <= APART_STEPS)
        w.sums[1] += TS_MATRIX_SUMS;
    return w;
}

/* Each byte of weights is read once where it comes from afar: for one image, and where not all of them stay in L2. */
static int panels_first(const matrix *m, const ts_scope *scope)
{
    return m->form == TS_MATRIX_1X4 || scope->count == 1 || !m->resident;
}

static void run(const ts_step *step, const ts_scope *scope)
{
    const matrix *m = step->data;
    const int channels_outermost = panels_first(m, scope);
    walk w = walk_of(step, scope);
    uint8_t saved[64] = {0};
    int from, to;
    for (int opened = 0; ts_take(scope, w.blocks * m->panels, &from, &to); opened = 1) {
        if (!opened)
            m->kernel->open(saved);
        for (int index = from; index < to; index++)
            if (channels_outermost)
                run_tiles(&w, index % w.blocks, index / w.blocks);
            else
                run_tiles(&w, index / m->panels, index % m->panels);
    }
    if (w.begun) {
        m->kernel->finish[m->form](&w.block[!w.current]);
        m->kernel->close(saved);
    }
}

const ts_conv_algorithm ts_conv_matrix = {"matrix", takes, build, run, matrix_free};
