#include "conv/rows.h"

enum {
    CACHED_WEIGHTS = 24 * 1024, /* bytes that stay in L1 beside the rows */
    FLAT_PIXELS = 48,           /* as many leave no more than a tile in eight partly empty, and enough units for the threads */
};

/* Whether the first pixel of a row follows the last of the row before. */
static int rows_follow(const ts_tensor *tensor)
{
    return tensor->row_bytes == (size_t)tensor->desc.width * tensor->pixel_bytes;
}

/*
 * How many rows are cut into tiles as one where tiles do not fill a row: 7 pixels in tiles of 6 take one of 4 and one of 3,
 * which wait for their own sums, and 49 pixels take 9 tiles.
 */
static int flat_rows(const ts_conv_problem *problem, const ts_conv_kernel *kernel, int follows)
{
    const ts_conv_desc *desc = problem->desc;
    const int height = problem->target->desc.height, width = problem->target->desc.width;
    const int pointwise = desc->kernel_h == 1 && desc->kernel_w == 1 && desc->stride_h == 1 && desc->stride_w == 1 &&
                          desc->pad_top == 0 && desc->pad_left == 0 && desc->groups == 1 && height <= problem->source->desc.height &&
                          width == problem->source->desc.width;
    if (!pointwise || width % kernel->pixels == 0 || !rows_follow(problem->source) || !(follows || (kernel->join && width >= kernel->pixels)))
        return 1;
    int rows = 1;
    while (rows < height && (height % rows != 0 || rows * width < FLAT_PIXELS))
        rows++;
    return rows;
}

ts_rows ts_rows_of(const ts_conv_problem *problem, const ts_conv_kernel *kernel, size_t panel_bytes)
{
    const ts_conv_desc *desc = problem->desc;
    const ts_tensor *source = problem->source;
    const ptrdiff_t pixel_step = (ptrdiff_t)source->pixel_bytes * desc->stride_w;
    int capacity;
    ts_rows rows = {
        .kernel = kernel,
        .stride_h = desc->stride_h, .stride_w = desc->stride_w, .kernel_h = desc->kernel_h, .dilation_h = desc->dilation_h,
        .pad_top = desc->pad_top, .conv_groups = desc->groups, .panels = ts_conv_panels(problem, kernel->groups * TS_GROUP),
        .origin = -((ptrdiff_t)desc->pad_top * (ptrdiff_t)source->row_bytes + (ptrdiff_t)desc->pad_left * (ptrdiff_t)source->pixel_bytes),
        .split = problem->target->desc.width == 7 && kernel->select(14, pixel_step, 7, &capacity) ? 7 : 0,
        .skip_padding = source->desc.zero == 0,
        .follows = rows_follow(problem->target) && (!problem->residual || rows_follow(problem->residual)),
    };
    rows.flat = rows.split ? 1 : flat_rows(problem, kernel, rows.follows);
    rows.rows_first = (size_t)rows.panels * panel_bytes <= CACHED_WEIGHTS;
    return rows;
}

/* The output rows that one tile covers: one, or two short ones joined. */
typedef struct {
    int rows;
    int image[2], y[2];
} row_unit;

/*
 * Joined rows are the same row of two images, so that both meet the same padding; an image without a partner joins its
 * own neighbouring rows.
 */
static int count_units(const ts_rows *rows, int images, int height)
{
    if (!rows->split)
        return images * (height / rows->flat);
    return images / 2 * height + images % 2 * ts_ceil_div(height, 2);
}

static row_unit unit_at(const ts_rows *rows, int index, int images, int height)
{
    if (!rows->split) {
        const int units = height / rows->flat;
        return (row_unit){.rows = 1, .image = {index / units}, .y = {index % units * rows->flat}};
    }
    const int paired = images / 2 * height;
    if (index < paired) {
        const int image = index / height * 2, y = index % height;
        return (row_unit){.rows = 2, .image = {image, image + 1}, .y = {y, y}};
    }
    const int y = (index - paired) * 2, last = y + 1 == height;
    return (row_unit){.rows = last ? 1 : 2, .image = {images - 1, images - 1}, .y = {y, last ? y : y + 1}};
}

/* Kernel rows [from, to) that meet more than padding in any row of the unit. */
static void useful_kernel_rows(const ts_rows *rows, const row_unit *unit, int height, int *from, int *to)
{
    *from = 0;
    *to = rows->kernel_h;
    if (!rows->skip_padding)
        return;
    const int low = unit->y[0] * rows->stride_h - rows->pad_top;
    const int high = unit->y[unit->rows - 1] * rows->stride_h - rows->pad_top;
    while (*from < *to && high + *from * rows->dilation_h < 0)
        ++*from;
    while (*to > *from && low + (*to - 1) * rows->dilation_h >= height)
        --*to;
}

/* The addresses of one row of the unit. */
static void place_row(const ts_step *step, const ts_scope *scope, const ts_rows *rows, ts_tile *tile, int index,
                      const row_unit *unit)
{
    const int image = scope->image + unit->image[index], y = unit->y[index];
    const uint8_t *pixels = rows->pixels ? rows->pixels(step, scope, image, &tile->factor[index]) : ts_pixels(step->source, scope, image);
    tile->input[index] = pixels + rows->origin + (size_t)(y * rows->stride_h) * step->source->row_bytes;
    tile->output[index] = ts_pixels(step->target, scope, image) + (size_t)y * step->target->row_bytes;
    if (step->other)
        tile->residual[index] = ts_pixels(step->other, scope, image) + (size_t)y * step->other->row_bytes;
}

static void advance(ts_tile *tile, int pixels)
{
    tile->input[0] += pixels * tile->pixel_step;
    tile->output[0] += pixels * tile->output_step;
    if (tile->residual[0])
        tile->residual[0] += pixels * tile->residual_step;
}

static void run_row(const ts_conv_kernel *kernel, ts_tile *tile, int width)
{
    int left = width;
    while (left > 0) {
        int capacity;
        const ts_tile_fn function = kernel->select(left, tile->pixel_step, 0, &capacity);
        tile->pixels = tile->split = left < capacity ? left : capacity;
        function(tile);
        left -= tile->pixels;
        if (left > 0)
            advance(tile, tile->pixels);
    }
}

/* Rows whose input pixels follow each other. */
static void run_flat_rows(const ts_step *step, const ts_rows *rows, ts_tile *tile)
{
    const int width = step->target->desc.width;
    const ptrdiff_t output_row = (ptrdiff_t)step->target->row_bytes, residual_row = step->other ? (ptrdiff_t)step->other->row_bytes : 0;
    uint8_t *output = tile->output[0];
    const uint8_t *residual = tile->residual[0];
    int x = 0;
    tile->factor[1] = tile->factor[0];
    for (int left = rows->flat * width; left > 0; left -= tile->pixels, x += tile->pixels) {
        int capacity;
        ts_tile_fn function = rows->kernel->select(left, tile->pixel_step, 0, &capacity);
        for (; x >= width; x -= width) {
            output += output_row;
            residual = residual ? residual + residual_row : NULL;
        }
        tile->pixels = left < capacity ? left : capacity;
        tile->split = tile->pixels;
        tile->output[0] = output + x * tile->output_step;
        tile->residual[0] = residual ? residual + x * tile->residual_step : NULL;
        if (x + tile->pixels > width) {
            tile->split = width - x;
            tile->input[1] = tile->input[0] + tile->split * tile->pixel_step;
            tile->output[1] = output + output_row;
            tile->residual[1] = residual ? residual + residual_row : NULL;
            function = rows->kernel->join(tile->pixels);
        }
        function(tile);
        tile->input[0] += tile->pixels * tile->pixel_step;
    }
}

static void run_joined_rows(const ts_rows *rows, ts_tile *tile, int count)
{
    int capacity;
    tile->split = rows->split;
    tile->pixels = count * rows->split;
    rows->kernel->select(2 * rows->split, tile->pixel_step, rows->split, &capacity)(tile);
}

/* One unit of rows of one panel. */
static void run_unit(const ts_step *step, const ts_scope *scope, const ts_rows *rows, ts_tile *tile, const row_unit *unit, int panel)
{
    const int kernel_groups = rows->kernel->groups;
    const int groups = ts_ceil_div(step->target->desc.channels / rows->conv_groups, TS_GROUP);
    const int first = panel % rows->panels * kernel_groups, group = panel / rows->panels * groups + first;
    int from, to;
    useful_kernel_rows(rows, unit, step->source->desc.height, &from, &to);
    rows->reduce(step->data, tile, panel, from, to);
    tile->channel = (size_t)(panel * kernel_groups) * TS_GROUP;
    tile->groups = groups - first < kernel_groups ? groups - first : kernel_groups;
    tile->output_groups = step->target->group_offsets + group;
    if (step->other)
        tile->residual_groups = step->other->group_offsets + group;
    place_row(step, scope, rows, tile, 0, unit);
    if (rows->split) {
        place_row(step, scope, rows, tile, 1, unit);
        run_joined_rows(rows, tile, unit->rows);
    } else if (rows->flat > 1 && !rows->follows) {
        run_flat_rows(step, rows, tile);
    } else {
        run_row(rows->kernel, tile, rows->flat * step->target->desc.width);
    }
}

void ts_rows_run(const ts_step *step, const ts_scope *scope, const ts_rows *rows)
{
    const int height = step->target->desc.height;
    const int units = count_units(rows, scope->count, height);
    const int panels = rows->conv_groups * rows->panels;
    ts_tile tile = {
        .pixel_step = (ptrdiff_t)step->source->pixel_bytes * rows->stride_w,
        .residual_step = step->other ? (ptrdiff_t)step->other->pixel_bytes : 0,
        .output_step = (ptrdiff_t)step->target->pixel_bytes,
        .epilogue = rows->epilogue,
    };
    int from, to;
    for (int prepared = !rows->prepare; ts_take(scope, units * panels, &from, &to); prepared = 1) {
        if (!prepared)
            rows->prepare(step, scope);
        for (int index = from; index < to; index++) {
            const row_unit unit = unit_at(rows, rows->rows_first ? index / panels : index % units, scope->count, height);
            run_unit(step, scope, rows, &tile, &unit, rows->rows_first ? index % panels : index / units);
        }
    }
}
