#include "conv/matrix_tiles.h"

#include <stdlib.h>
#include <string.h>

static int steps_once(const ts_conv_problem *problem)
{
    const int taps = problem->desc->kernel_h * problem->desc->kernel_w;
    if (ts_is_packed(problem->source))
        return ts_ceil_div(taps * (int)problem->source->pixel_bytes, TS_MATRIX_BYTES);
    return problem->source->blocks * taps;
}

int ts_matrix_byte(const ts_conv_problem *problem, int channel, int tap)
{
    const int element = ts_element_bytes(problem->source->desc.dtype), byte = channel * element;
    if (ts_is_packed(problem->source))
        return tap * problem->inputs * element + byte;
    return (byte / TS_MATRIX_BYTES * problem->desc->kernel_h * problem->desc->kernel_w + tap) * TS_MATRIX_BYTES + byte % TS_MATRIX_BYTES;
}

int ts_matrix_order_build(const ts_conv_problem *problem, ts_matrix_order *order)
{
    const int taps = problem->desc->kernel_h * problem->desc->kernel_w, arrays = problem->desc->rests + 1;
    order->once = steps_once(problem);
    order->at = malloc((size_t)(arrays * order->once) * sizeof *order->at);
    if (!order->at)
        return -1;
    for (int i = 0; i < arrays * order->once; i++)
        order->at[i] = i < order->once ? 0 : -1;
    const int8_t *rest = problem->desc->weights; /* of later arrays, which only u8 sources have */
    for (size_t i = ts_weight_count(problem); i < (size_t)arrays * ts_weight_count(problem); i++) {
        const int part = (int)(i / ts_weight_count(problem)), inner = (int)(i % (size_t)problem->filter);
        if (rest[i])
            order->at[part * order->once + ts_matrix_byte(problem, inner / taps, inner % taps) / TS_MATRIX_BYTES] = 0;
    }
    for (int i = 0; i < arrays * order->once; i++)
        if (order->at[i] >= 0)
            order->at[i] = order->steps++;
    return 0;
}

void ts_tiling_free(ts_tiling *tiling)
{
    free(tiling->tiles);
    free(tiling->places);
    free(tiling->steps);
    free(tiling->lists);
}

static int allocate(ts_tiling *tiling, size_t tiles, size_t places, size_t steps, size_t lists)
{
    tiling->tiles = calloc(tiles, sizeof *tiling->tiles);
    tiling->places = calloc(places, sizeof *tiling->places);
    tiling->steps = calloc(steps, sizeof *tiling->steps);
    tiling->lists = calloc(lists, sizeof *tiling->lists);
    return tiling->tiles && tiling->places && tiling->steps && tiling->lists ? 0 : -1;
}

/* Taps [from_y, to_y) by [from_x, to_x) of a kernel. */
typedef struct {
    int from_y, to_y, from_x, to_x;
} tap_range;

/* Writes step `index` for each array of weights that has it. Returns where the next one goes. */
static ts_matrix_step *add_step(const ts_conv_problem *problem, const ts_matrix_order *order, int index, int32_t input, ts_matrix_step *step)
{
    for (int part = 0; part <= problem->desc->rests; part++) {
        const int at = order->at[part * order->once + index];
        if (at >= 0)
            *step++ = (ts_matrix_step){.input = input, .weights = at * TS_MATRIX_STEP};
    }
    return step;
}

/* Bytes from the first pixel of an image, which pixels of the frame may lie before. */
static ptrdiff_t pixel_at(const ts_tensor *tensor, int y, int x)
{
    ptrdiff_t phase = 0;
    if (!tensor)
        return 0;
    if (tensor->desc.phases) {
        const int odd_y = y & 1, odd_x = x & 1;
        phase = (2 * odd_y + odd_x) * (ptrdiff_t)tensor->phase_bytes;
        y = (y - odd_y) / 2;
        x = (x - odd_x) / 2;
    }
    return phase + y * (ptrdiff_t)tensor->row_bytes + x * (ptrdiff_t)tensor->pixel_bytes;
}

/* Bytes from the first pixel of the input to where the window of an output pixel begins, without padding. */
static ptrdiff_t window_at(const ts_conv_problem *problem, int y, int x)
{
    return pixel_at(problem->source, y * problem->desc->stride_h, x * problem->desc->stride_w);
}

/* Appends a list: input blocks outermost, so that the pixels of one block are read by all taps while they are in L1. */
static void add_list(const ts_conv_problem *problem, const ts_matrix_order *order, ts_tiling *tiling, tap_range taps)
{
    const ts_conv_desc *d = problem->desc;
    const ts_tensor *source = problem->source;
    const int last = tiling->list_count - 1;
    ts_step_list *list = &tiling->lists[tiling->list_count++];
    list->first = last < 0 ? 0 : tiling->lists[last].first + tiling->lists[last].count;
    ts_matrix_step *step = tiling->steps + list->first;
    for (int block = 0; block < source->blocks; block++)
        for (int i = taps.from_y; i < taps.to_y; i++)
            for (int j = taps.from_x; j < taps.to_x; j++) {
                const ptrdiff_t input = (ptrdiff_t)block * (ptrdiff_t)source->plane_bytes +
                                        pixel_at(source, i * d->dilation_h - d->pad_top, j * d->dilation_w - d->pad_left);
                step = add_step(problem, order, (block * d->kernel_h + i) * d->kernel_w + j, (int32_t)input, step);
            }
    list->count = (int)(step - tiling->steps) - list->first;
}

/* ---- in images ---- */

/* Whether pixel after pixel is read, phase after phase. */
static int through_phases(const ts_conv_problem *problem)
{
    return problem->source->desc.phases && problem->desc->stride_h == 1;
}

/* The output pixel at a position, of which `pitch` make a row, or a place beyond the sides of the map. */
static void pixel_of(const ts_conv_problem *problem, int position, int pitch, int *y, int *x)
{
    const ts_tensor *source = problem->source;
    *y = position / pitch;
    *x = position % pitch;
    if (through_phases(problem)) {
        const int of_phase = (int)(source->phase_bytes / source->pixel_bytes), phase = position / of_phase;
        *y = position % of_phase / pitch * 2 + phase / 2;
        *x = position % of_phase % pitch * 2 + phase % 2;
    }
}

/* A tile of `rows` positions, of which those that are output pixels are wanted. */
static void place_tile(const ts_conv_problem *problem, ts_tiling *tiling, int position, int rows, int pitch, ptrdiff_t input)
{
    const ts_tensor_desc *out = &problem->target->desc;
    ts_tile_plan *tile = &tiling->tiles[tiling->tile_count];
    *tile = (ts_tile_plan){.input = input, .position = position, .first = tiling->tile_count * TS_MATRIX_ROWS};
    for (int row = 0; row < rows; row++) {
        int y, x;
        pixel_of(problem, position + row, pitch, &y, &x);
        if (x < out->width && y < out->height)
            tiling->places[tile->first + tile->count++] = (ts_matrix_place){
                .row = row, .output = (int32_t)pixel_at(problem->target, y, x), .residual = (int32_t)pixel_at(problem->residual, y, x)};
    }
    tiling->tile_count += tile->count > 0;
}

/* Pixels of a row of the input, or of one of its phases. */
static int pitch_of(const ts_tensor *source)
{
    return (int)(source->row_bytes / source->pixel_bytes);
}

/* How far a flat reader runs: up to its last output pixel. */
static int positions_of(const ts_conv_problem *problem)
{
    const ts_tensor *source = problem->source;
    const ts_tensor_desc *out = &problem->target->desc;
    return through_phases(problem) ? (int)(source->plane_bytes / source->pixel_bytes) : (out->height - 1) * pitch_of(source) + out->width;
}

static void tile_flat(const ts_conv_problem *problem, ts_tiling *tiling)
{
    const ts_tensor *source = problem->source;
    const int positions = positions_of(problem), pitch = pitch_of(source);
    for (int at = 0; at < positions; at += TS_MATRIX_ROWS) {
        const int rows = positions - at < TS_MATRIX_ROWS ? positions - at : TS_MATRIX_ROWS;
        place_tile(problem, tiling, at, rows, pitch, at * (ptrdiff_t)source->pixel_bytes);
    }
}

/* Pixels of one row, in nearly equal tiles. */
static void tile_rows(const ts_conv_problem *problem, ts_tiling *tiling)
{
    const ts_tensor_desc *out = &problem->target->desc;
    const int parts = ts_ceil_div(out->width, TS_MATRIX_ROWS), widest = ts_ceil_div(out->width, parts);
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x += widest) {
            const int rows = out->width - x < widest ? out->width - x : widest;
            place_tile(problem, tiling, y * out->width + x, rows, out->width, window_at(problem, y, x));
        }
}

/* ---- lowered ---- */

size_t ts_lowered_bytes(const ts_conv_problem *problem)
{
    return (size_t)steps_once(problem) * TS_MATRIX_BYTES;
}

static void tile_lowered(const ts_conv_problem *problem, const ts_matrix_order *order, ts_tiling *tiling)
{
    const ts_tensor_desc *out = &problem->target->desc;
    for (int at = 0; at < out->height * out->width; at += TS_MATRIX_ROWS)
        place_tile(problem, tiling, at, TS_MATRIX_ROWS, out->width, 0);
    ts_matrix_step *step = tiling->steps;
    for (int index = 0; index < order->once; index++)
        step = add_step(problem, order, index, index * TS_MATRIX_BYTES, step);
    tiling->lists[0] = (ts_step_list){0, order->steps};
    tiling->list_count = 1;
    tiling->input_step = (ptrdiff_t)ts_lowered_bytes(problem);
    tiling->lowered = 1;
}

ts_lowering ts_lowering_of(const ts_conv_problem *problem)
{
    const ts_conv_desc *d = problem->desc;
    const ts_tensor *source = problem->source;
    return (ts_lowering){
        .kernel_h = d->kernel_h, .span = d->kernel_w * (int)source->pixel_bytes,
        .width = problem->target->desc.width, .height = problem->target->desc.height,
        .origin = pixel_at(source, -d->pad_top, -d->pad_left), .row_step = d->stride_h * (ptrdiff_t)source->row_bytes,
        .tap_step = d->dilation_h * (ptrdiff_t)source->row_bytes, .pixel_step = d->stride_w * (ptrdiff_t)source->pixel_bytes,
        .row_bytes = ts_lowered_bytes(problem)};
}

void ts_lower(const ts_lowering *l, const uint8_t *image, int position, uint8_t *rows)
{
    int y = position / l->width, x = position % l->width;
    for (int row = 0; row < TS_MATRIX_ROWS; row++, rows += l->row_bytes) {
        const uint8_t *window = image + l->origin + y * l->row_step + x * l->pixel_step;
        uint8_t *target = rows;
        for (int i = 0; i < l->kernel_h; i++, window += l->tap_step, target += l->span)
            for (int at = 0; at < l->span; at += TS_COPY)
                memcpy(target + at, window + at, TS_COPY);
        if (x + 1 < l->width)
            x++;
        else if (y + 1 < l->height)
            x = 0, y++;
    }
}

int ts_tiling_in_images(const ts_conv_problem *problem, const ts_matrix_order *order, ts_tiling *tiling)
{
    const ts_conv_desc *d = problem->desc;
    const ts_tensor *source = problem->source;
    const ts_tensor_desc *out = &problem->target->desc;
    const int flat = source->desc.phases || (d->stride_h == 1 && d->stride_w == 1);
    const size_t most = 1 + (size_t)(flat ? positions_of(problem) / TS_MATRIX_ROWS : out->height * ts_ceil_div(out->width, TS_MATRIX_ROWS));
    *tiling = (ts_tiling){.input_step = (ptrdiff_t)source->pixel_bytes * (flat ? 1 : d->stride_w)};
    if (allocate(tiling, most, most * TS_MATRIX_ROWS, (size_t)order->steps, 1))
        return -1;
    if (ts_is_packed(source)) {
        tile_lowered(problem, order, tiling);
        return 0;
    }
    add_list(problem, order, tiling, (tap_range){0, d->kernel_h, 0, d->kernel_w});
    (flat ? tile_flat : tile_rows)(problem, tiling);
    return 0;
}

/* ---- across images ---- */

/* Taps of output coordinate `at` that lie in the input, when padding may be left out. */
static void useful_taps(int at, int stride, int pad, int kernel, int dilation, int size, int *from, int *to)
{
    const int start = at * stride - pad;
    *from = 0;
    *to = kernel;
    while (*from < *to && start + *from * dilation < 0)
        ++*from;
    while (*to > *from && start + (*to - 1) * dilation >= size)
        --*to;
}

static tap_range taps_of(const ts_conv_problem *problem, int y, int x)
{
    const ts_conv_desc *d = problem->desc;
    const ts_tensor_desc *in = &problem->source->desc;
    tap_range all = {0, d->kernel_h, 0, d->kernel_w}, taps;
    useful_taps(y, d->stride_h, d->pad_top, d->kernel_h, d->dilation_h, in->height, &taps.from_y, &taps.to_y);
    useful_taps(x, d->stride_w, d->pad_left, d->kernel_w, d->dilation_w, in->width, &taps.from_x, &taps.to_x);
    /* A frame of another value than zero counts, and a sum needs a step. */
    return in->zero != 0 || taps.from_y == taps.to_y || taps.from_x == taps.to_x ? all : taps;
}

/* Appends the pixels that have these taps, so that neighbours in the list can share a block. */
static void add_pixels(const ts_conv_problem *problem, ts_tiling *tiling, tap_range taps)
{
    const ts_tensor_desc *out = &problem->target->desc;
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++) {
            const tap_range own = taps_of(problem, y, x);
            if (memcmp(&own, &taps, sizeof own) == 0)
                tiling->tiles[tiling->tile_count++] = (ts_tile_plan){
                    .input = window_at(problem, y, x), .output = pixel_at(problem->target, y, x),
                    .residual = pixel_at(problem->residual, y, x), .count = TS_MATRIX_ROWS, .list = tiling->list_count - 1};
        }
}

static int is_new(const ts_conv_problem *problem, int y, int x)
{
    const tap_range own = taps_of(problem, y, x);
    const int width = problem->target->desc.width;
    for (int before = 0; before < y * width + x; before++) {
        const tap_range other = taps_of(problem, before / width, before % width);
        if (memcmp(&own, &other, sizeof own) == 0)
            return 0;
    }
    return 1;
}

int ts_tiling_across_images(const ts_conv_problem *problem, const ts_matrix_order *order, ts_tiling *tiling)
{
    const ts_tensor_desc *out = &problem->target->desc;
    const size_t pixels = (size_t)out->height * (size_t)out->width;
    *tiling = (ts_tiling){.input_step = (ptrdiff_t)problem->source->image_bytes, .across = 1};
    if (allocate(tiling, pixels, TS_MATRIX_ROWS, pixels * (size_t)order->steps, pixels))
        return -1;
    for (int row = 0; row < TS_MATRIX_ROWS; row++)
        tiling->places[row] = (ts_matrix_place){
            .row = row, .output = (int32_t)((size_t)row * problem->target->image_bytes),
            .residual = problem->residual ? (int32_t)((size_t)row * problem->residual->image_bytes) : 0};
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++)
            if (is_new(problem, y, x)) {
                add_list(problem, order, tiling, taps_of(problem, y, x));
                add_pixels(problem, tiling, taps_of(problem, y, x));
            }
    return 0;
}
