/* Maximum, average and global average pooling on blocked tensors. */
#include "kernels/table.h"
#include "layout/values.h"
#include "run/execution.h"

#include <stdlib.h>

typedef struct {
    ts_pool_desc desc;
    const ts_kernel *maximum; /* null: averages, and maxima that change scale or type */
    int groups_at_once;       /* that one call takes */
} pool_data;

enum { MAX_TAPS = 256 };

/* The taps of one output coordinate that lie inside the input. */
typedef struct {
    int from, to; /* tap indices */
    int start;    /* input coordinate of tap 0 */
} window;

static window clip_window(int output, int stride, int pad, int kernel, int dilation, int size)
{
    window w = {.from = 0, .to = kernel, .start = output * stride - pad};
    while (w.from < kernel && w.start + w.from * dilation < 0)
        w.from++;
    while (w.to > w.from && w.start + (w.to - 1) * dilation >= size)
        w.to--;
    return w;
}

static void reduce_pixel(const uint8_t *plane, const ts_step *step, window rows, window columns, int divisor,
                         uint8_t *target)
{
    const ts_pool_desc *d = &((const pool_data *)step->data)->desc;
    const ts_tensor *source = step->source;
    float total[TS_GROUP], x[TS_GROUP], low, high;
    for (int lane = 0; lane < TS_GROUP; lane++)
        total[lane] = d->average ? 0.0f : -INFINITY;
    for (int i = rows.from; i < rows.to; i++)
        for (int j = columns.from; j < columns.to; j++) {
            const ptrdiff_t y = rows.start + i * d->dilation_h, z = columns.start + j * d->dilation_w;
            ts_values_load(source, plane + y * (ptrdiff_t)source->row_bytes + z * (ptrdiff_t)source->pixel_bytes, x);
            for (int lane = 0; lane < TS_GROUP; lane++)
                total[lane] = d->average ? total[lane] + x[lane] : x[lane] > total[lane] ? x[lane] : total[lane];
        }
    const float factor = d->average && divisor ? d->scale / (float)divisor : d->scale;
    for (int lane = 0; lane < TS_GROUP; lane++)
        total[lane] *= factor;
    ts_full_range(step->target, &low, &high);
    ts_values_store(step->target, target, total, low, high);
}

/* How many taps an average divides by: those inside the input, or inside the padded input. */
static int divisor_of(const ts_pool_desc *d, const ts_tensor *source, window rows, window columns)
{
    if (!d->count_padding)
        return (rows.to - rows.from) * (columns.to - columns.from);
    int height = 0, width = 0;
    for (int i = 0; i < d->kernel_h; i++)
        height += rows.start + i * d->dilation_h < source->desc.height + d->pad_bottom;
    for (int j = 0; j < d->kernel_w; j++)
        width += columns.start + j * d->dilation_w < source->desc.width + d->pad_right;
    return height * width;
}

/* Offsets of the taps of a window from its first pixel, and how many there are. */
static int list_taps(const ts_pool_desc *d, const ts_tensor *source, window rows, window columns, int32_t *taps)
{
    int count = 0;
    for (int i = rows.from; i < rows.to; i++)
        for (int j = columns.from; j < columns.to; j++)
            taps[count++] = (int32_t)(i * d->dilation_h * (ptrdiff_t)source->row_bytes +
                                      j * d->dilation_w * (ptrdiff_t)source->pixel_bytes);
    return count;
}

/* One output row. Neighbouring pixels whose windows have the same taps go to the kernel together. */
static void max_row(const uint8_t *plane, const ts_step *step, window rows, uint8_t *out)
{
    const pool_data *data = step->data;
    const ts_pool_desc *d = &data->desc;
    const ts_tensor *source = step->source, *target = step->target;
    int32_t taps[MAX_TAPS];
    for (int x = 0; x < target->desc.width;) {
        const window columns = clip_window(x, d->stride_w, d->pad_left, d->kernel_w, d->dilation_w, source->desc.width);
        int end = x + 1;
        for (; end < target->desc.width; end++) {
            const window next = clip_window(end, d->stride_w, d->pad_left, d->kernel_w, d->dilation_w, source->desc.width);
            if (next.from != columns.from || next.to != columns.to)
                break;
        }
        const int count = list_taps(d, source, rows, columns, taps);
        const uint8_t *first = plane + rows.start * (ptrdiff_t)source->row_bytes + columns.start * (ptrdiff_t)source->pixel_bytes;
        data->maximum->maximum(first, d->stride_w * (ptrdiff_t)source->pixel_bytes, taps, count,
                               out + (size_t)x * target->pixel_bytes, (ptrdiff_t)target->pixel_bytes, end - x);
        x = end;
    }
}

static void reduce_row(const uint8_t *plane, const ts_step *step, window rows, uint8_t *out)
{
    const ts_pool_desc *d = &((const pool_data *)step->data)->desc;
    for (int x = 0; x < step->target->desc.width; x++, out += step->target->pixel_bytes) {
        const window columns =
            clip_window(x, d->stride_w, d->pad_left, d->kernel_w, d->dilation_w, step->source->desc.width);
        reduce_pixel(plane, step, rows, columns, divisor_of(d, step->source, rows, columns), out);
    }
}

static void pool_run(const ts_step *step, const ts_scope *scope)
{
    const pool_data *data = step->data;
    const ts_pool_desc *d = &data->desc;
    const ts_tensor *source = step->source, *target = step->target;
    const int height = target->desc.height, parts = target->groups / data->groups_at_once;
    int from, to;
    while (ts_take(scope, scope->count * parts * height, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int y = unit % height, group = unit / height % parts * data->groups_at_once;
            const int image = scope->image + unit / height / parts;
            const uint8_t *in = ts_row(source, scope, image, group, 0);
            uint8_t *out = ts_row(target, scope, image, group, y);
            const window rows = clip_window(y, d->stride_h, d->pad_top, d->kernel_h, d->dilation_h, source->desc.height);
            (data->maximum ? max_row : reduce_row)(in, step, rows, out);
        }
}

/* Every window must hold at least one pixel of the input: the maximum of nothing has no value. */
static int windows_hold_pixels(const ts_pool_desc *d, const ts_tensor *source, const ts_tensor *target)
{
    for (int y = 0; y < target->desc.height; y++) {
        const window rows = clip_window(y, d->stride_h, d->pad_top, d->kernel_h, d->dilation_h, source->desc.height);
        if (rows.from >= rows.to)
            return 0;
    }
    for (int x = 0; x < target->desc.width; x++) {
        const window columns = clip_window(x, d->stride_w, d->pad_left, d->kernel_w, d->dilation_w, source->desc.width);
        if (columns.from >= columns.to)
            return 0;
    }
    return 1;
}

/* The kernel of a maximum that changes neither scale nor type. Whole blocks of TS_WIDE_GROUPS groups have their own, where there is one. */
static void choose_maximum(pool_data *data, const ts_tensor *source, const ts_tensor *target, uint32_t features)
{
    const int wide = TS_WIDE_GROUPS * TS_GROUP;
    data->maximum = ts_find_kernel(TS_MAXIMUM, source->desc.dtype, features);
    const ts_kernel *wider = ts_find_kernel(TS_MAXIMUM_WIDE, source->desc.dtype, features);
    if (!wider || source->desc.block != wide || target->desc.block != wide || source->desc.channels % wide)
        return;
    data->maximum = wider;
    data->groups_at_once = TS_WIDE_GROUPS;
}

int ts_program_pool(ts_program *program, const ts_pool_desc *desc)
{
    const ts_tensor *source = ts_tensor_at(program, desc->source), *target = ts_tensor_at(program, desc->target);
    if (!source || !target)
        return -1;
    if (ts_is_packed(source) || ts_is_packed(target) || source->desc.channels != target->desc.channels)
        return ts_fail(program, "pooling needs blocked tensors with the same channels");
    if (desc->kernel_h < 1 || desc->kernel_w < 1 || desc->stride_h < 1 || desc->stride_w < 1 || desc->dilation_h < 1 ||
        desc->dilation_w < 1 || desc->pad_top < 0 || desc->pad_left < 0 || desc->pad_bottom < 0 || desc->pad_right < 0)
        return ts_fail(program, "a pooling with impossible kernel, stride, dilation or padding");
    if (!desc->average && source->desc.dtype == TS_U8 && target->desc.dtype == TS_U8 &&
        (desc->scale != 1.0f || source->desc.zero != target->desc.zero))
        return ts_fail(program, "maximum pooling of u8 keeps its scale and zero point");
    if (!windows_hold_pixels(desc, source, target))
        return ts_fail(program, "a pooling window lies wholly in padding");
    pool_data *data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a pooling step");
    data->desc = *desc;
    data->groups_at_once = 1;
    if (!desc->average && source->desc.dtype == target->desc.dtype && desc->kernel_h * desc->kernel_w <= MAX_TAPS)
        choose_maximum(data, source, target, program->features);
    return ts_append(program, (ts_step){.run = pool_run, .free = free, .data = data, .source = source, .target = target,
                                        .kind = desc->average ? "average_pool" : "max_pool",
                                        .kernel = data->maximum ? data->maximum->name : ""});
}

/* The pixels of one group: u8 ones are summed exactly, as integers. */
static void sum_u8(const uint8_t *plane, const ts_tensor *source, float total[TS_GROUP])
{
    int32_t sum[TS_GROUP] = {0};
    for (int y = 0; y < source->desc.height; y++) {
        const uint8_t *pixel = plane + (size_t)y * source->row_bytes;
        for (int x = 0; x < source->desc.width; x++, pixel += source->pixel_bytes)
            for (int lane = 0; lane < TS_GROUP; lane++)
                sum[lane] += pixel[lane];
    }
    const int32_t zero = source->desc.zero * source->desc.height * source->desc.width;
    for (int lane = 0; lane < TS_GROUP; lane++)
        total[lane] = (float)(sum[lane] - zero);
}

static void sum_float(const uint8_t *plane, const ts_tensor *source, float total[TS_GROUP])
{
    float x_lanes[TS_GROUP];
    memset(total, 0, TS_GROUP * sizeof *total);
    for (int y = 0; y < source->desc.height; y++, plane += source->row_bytes)
        for (int x = 0; x < source->desc.width; x++) {
            ts_values_load(source, plane + (size_t)x * source->pixel_bytes, x_lanes);
            for (int lane = 0; lane < TS_GROUP; lane++)
                total[lane] += x_lanes[lane];
        }
}

typedef struct {
    float scale; /* source units to target units */
    float tap;   /* real value of one quantum of the source; 0: no tap */
} global_data;

/* The pixels of one group as real values, channel by channel. */
static void tap_group(const uint8_t *plane, const ts_tensor *source, float scale, int group, float *image)
{
    const ts_tensor_desc *d = &source->desc;
    const size_t pixels = (size_t)d->height * (size_t)d->width;
    const int first = group * TS_GROUP, lanes = d->channels - first < TS_GROUP ? d->channels - first : TS_GROUP;
    float *out = image + (size_t)first * pixels, value[TS_GROUP];
    for (int y = 0; y < d->height; y++, plane += source->row_bytes)
        for (int x = 0; x < d->width; x++, out++) {
            ts_values_load(source, plane + (size_t)x * source->pixel_bytes, value);
            for (int lane = 0; lane < lanes; lane++)
                out[(size_t)lane * pixels] = value[lane] * scale;
        }
}

static void global_run(const ts_step *step, const ts_scope *scope)
{
    const ts_tensor *source = step->source, *target = step->target;
    const global_data *data = step->data;
    const int pixels = source->desc.height * source->desc.width;
    const float factor = data->scale / (float)pixels;
    float low, high;
    ts_full_range(target, &low, &high);
    int from, to;
    while (ts_take(scope, scope->count * source->groups, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int group = unit % source->groups, image = scope->image + unit / source->groups;
            const uint8_t *in = ts_row(source, scope, image, group, 0);
            if (scope->tap && data->tap > 0)
                tap_group(in, source, data->tap, group,
                          scope->tap + (size_t)image * (size_t)source->desc.channels * (size_t)pixels);
            float total[TS_GROUP];
            if (source->desc.dtype == TS_U8)
                sum_u8(in, source, total);
            else
                sum_float(in, source, total);
            for (int lane = 0; lane < TS_GROUP; lane++)
                total[lane] *= factor;
            ts_values_store(target, ts_row(target, scope, image, group, 0), total, low, high);
        }
}

int ts_program_global_average(ts_program *program, int source_index, int target_index, float scale, float tap)
{
    const ts_tensor *source = ts_tensor_at(program, source_index), *target = ts_tensor_at(program, target_index);
    if (!source || !target)
        return -1;
    if (ts_is_packed(source) || ts_is_packed(target) || source->desc.channels != target->desc.channels ||
        target->desc.height != 1 || target->desc.width != 1)
        return ts_fail(program, "global average pooling maps a blocked tensor to one pixel of the same channels");
    if (tap > 0 && program->tapped)
        return ts_fail(program, "a program has one tap");
    global_data *data = malloc(sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a pooling step");
    *data = (global_data){.scale = scale, .tap = tap};
    if (tap > 0)
        program->tapped = source;
    return ts_append(program, (ts_step){.run = global_run, .free = free, .data = data, .source = source,
                                        .target = target, .kind = "global_average_pool", .kernel = ""});
}
