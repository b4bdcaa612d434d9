/* Running a convolution step: the loops around the micro-kernels. */
#include "conv/conv.h"

/* The output rows that one tile covers: one, or two short ones joined. */
typedef struct {
    int rows;
    int image[2], y[2];
} row_unit;

/*
 * Joined rows are the same row of two images, so that both meet the same padding; an image without a partner joins its
 * own neighbouring rows.
 */
static int count_units(const ts_conv *data, int images, int height)
{
    if (!data->split)
        return images * height;
    return images / 2 * height + images % 2 * ts_ceil_div(height, 2);
}

static row_unit unit_at(const ts_conv *data, int index, int images, int height)
{
    if (!data->split)
        return (row_unit){.rows = 1, .image = {index / height}, .y = {index % height}};
    const int paired = images / 2 * height;
    if (index < paired) {
        const int image = index / height * 2, y = index % height;
        return (row_unit){.rows = 2, .image = {image, image + 1}, .y = {y, y}};
    }
    const int y = (index - paired) * 2, last = y + 1 == height;
    return (row_unit){.rows = last ? 1 : 2, .image = {images - 1, images - 1}, .y = {y, last ? y : y + 1}};
}

/* Kernel rows [from, to) that meet more than padding in any row of the unit. */
static void useful_kernel_rows(const ts_conv *data, const row_unit *unit, int height, int *from, int *to)
{
    *from = 0;
    *to = data->kernel_h;
    if (!data->skip_padding)
        return;
    const int low = unit->y[0] * data->stride_h - data->pad_top;
    const int high = unit->y[unit->rows - 1] * data->stride_h - data->pad_top;
    while (*from < *to && high + *from * data->dilation_h < 0)
        ++*from;
    while (*to > *from && low + (*to - 1) * data->dilation_h >= height)
        --*to;
}

/* The addresses of one row of the unit. */
static void place_row(const ts_step *step, const ts_scope *scope, const ts_conv *data, ts_tile *tile, int index,
                      const row_unit *unit, int block, size_t group_offset)
{
    const int image = scope->image + unit->image[index], y = unit->y[index];
    const uint8_t *pixels = data->int16 ? ts_int16_pixels(step, scope, image, &tile->factor) : ts_pixels(step->source, scope, image);
    tile->input[index] = pixels + data->origin + group_offset +
                         (size_t)(y * data->stride_h) * step->source->row_bytes;
    tile->output[index] = ts_pixels(step->target, scope, image) + (size_t)block * step->target->plane_bytes +
                          (size_t)y * step->target->row_bytes;
    if (step->other)
        tile->residual[index] = ts_pixels(step->other, scope, image) + (size_t)block * step->other->plane_bytes +
                                (size_t)y * step->other->row_bytes;
}

static void advance(const ts_step *step, ts_tile *tile, int pixels)
{
    tile->input[0] += pixels * tile->pixel_step;
    tile->output[0] += (size_t)pixels * step->target->pixel_bytes;
    if (step->other)
        tile->residual[0] += (size_t)pixels * step->other->pixel_bytes;
}

static void run_row(const ts_step *step, const ts_conv *data, ts_tile *tile)
{
    int left = step->target->desc.width;
    while (left > 0) {
        int capacity;
        const ts_tile_fn function = data->kernel->select(left, tile->pixel_step, 0, &capacity);
        tile->pixels = tile->split = left < capacity ? left : capacity;
        function(tile);
        left -= tile->pixels;
        if (left > 0)
            advance(step, tile, tile->pixels);
    }
}

static void run_joined_rows(const ts_conv *data, ts_tile *tile, int rows)
{
    int capacity;
    tile->split = data->split;
    tile->pixels = rows * data->split;
    data->kernel->select(2 * data->split, tile->pixel_step, data->split, &capacity)(tile);
}

static ts_member_list members_between(const ts_member_list *list, const int32_t *rows, int from, int to)
{
    return (ts_member_list){.members = list->members + rows[from],
                            .weights = list->weights + (size_t)rows[from] * TS_GROUP * 4,
                            .count = rows[to] - rows[from]};
}

/* The reduction over kernel rows [from, to). */
static void place_reduction(const ts_conv *data, ts_tile *tile, int panel, int from, int to)
{
    if (data->chained) {
        const ts_chained_panel *chained = &data->chained[panel];
        for (int i = 0; i < TS_CHAIN; i++)
            tile->chains[i] = members_between(&chained->chains[i], chained->rows[i], from, to);
        return;
    }
    tile->offsets = data->offsets + from * data->row_entries;
    tile->entries = (to - from) * data->row_entries;
    tile->weights = data->weights + (size_t)panel * data->panel_bytes + (size_t)from * data->row_weight_bytes;
}

/* One unit of rows of one panel. */
static void run_unit(const ts_step *step, const ts_scope *scope, const ts_conv *data, ts_tile *tile,
                     const row_unit *unit, int panel)
{
    const int group = panel / data->panels, inner = panel % data->panels;
    const int group_blocks = ts_ceil_div(step->target->desc.channels / data->groups, TS_GROUP);
    const int first_block = inner * data->kernel->blocks;
    const int block = group * group_blocks + first_block;
    const size_t group_offset = (size_t)group * data->group_bytes;
    int from, to;
    useful_kernel_rows(data, unit, step->source->desc.height, &from, &to);
    place_reduction(data, tile, panel, from, to);
    tile->channel = (size_t)(panel * data->kernel->blocks) * TS_GROUP;
    tile->blocks = group_blocks - first_block < data->kernel->blocks ? group_blocks - first_block : data->kernel->blocks;
    place_row(step, scope, data, tile, 0, unit, block, group_offset);
    if (data->split) {
        place_row(step, scope, data, tile, 1, unit, block, group_offset);
        run_joined_rows(data, tile, unit->rows);
    } else {
        run_row(step, data, tile);
    }
}

void ts_conv_run(const ts_step *step, const ts_scope *scope)
{
    const ts_conv *data = step->data;
    const int height = step->target->desc.height;
    const int units = count_units(data, scope->count, height);
    const int panels = data->groups * data->panels;
    ts_tile tile = {
        .pixel_step = (ptrdiff_t)step->source->pixel_bytes * data->stride_w,
        .residual_block = step->other ? (ptrdiff_t)step->other->plane_bytes : 0,
        .output_block = (ptrdiff_t)step->target->plane_bytes,
        .epilogue = &data->epilogue,
    };
    int from, to;
    for (int prepared = !data->int16; ts_take(scope, units * panels, &from, &to); prepared = 1) {
        if (!prepared)
            ts_int16_prepare(step, scope);
        for (int index = from; index < to; index++) {
            const row_unit unit = unit_at(data, data->rows_first ? index / panels : index % units, scope->count, height);
            run_unit(step, scope, data, &tile, &unit, data->rows_first ? index % panels : index / units);
        }
    }
}
