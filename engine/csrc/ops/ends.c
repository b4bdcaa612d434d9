/* The caller's arrays: the first step reads them into a tensor, the last writes a tensor out as floats. */
#include "layout/values.h"
#include "run/execution.h"

#include <stdlib.h>

typedef struct {
    float scale;
    void *pixel_values; /* [channels][256] of the target's dtype, or null */
} input_data;

static void input_free(void *pointer)
{
    input_data *data = pointer;
    free(data->pixel_values);
    free(data);
}

static void store_value(const ts_tensor *target, uint8_t *at, float value)
{
    if (target->desc.dtype == TS_BF16)
        ts_bf16_store(at, value);
    else
        memcpy(at, &value, sizeof value);
}

/* Where channel `c` of the first pixel of row `y` is stored, and how far apart pixels are. */
static uint8_t *channel_row(const ts_tensor *target, uint8_t *image, int c, int y, size_t *step)
{
    *step = target->pixel_bytes;
    return image + ts_channel_offset(target, c) + (size_t)y * target->row_bytes;
}

/*
 * ts_quantise for a run of values, in a form that compilers vectorise on any machine: adding and subtracting 1.5 * 2^23
 * rounds to nearest even whatever lies within the clamp.
 */
static void quantise_run(const float *values, int count, float scale, int zero, uint8_t *out)
{
    const float low = (float)-zero, high = (float)(255 - zero), magic = 12582912.0f;
    for (int i = 0; i < count; i++) {
        const float real = values[i] / scale;
        const float clamped = real >= low ? (real <= high ? real : high) : low;
        out[i] = (uint8_t)((int32_t)((clamped + magic) - magic) + zero);
    }
}

static void read_quantised_row(const ts_tensor *target, const float *row, uint8_t *at, size_t step, float scale)
{
    enum { RUN = 128 };
    uint8_t levels[RUN];
    for (int x = 0; x < target->desc.width; x += RUN) {
        const int count = target->desc.width - x < RUN ? target->desc.width - x : RUN;
        quantise_run(row + x, count, scale, target->desc.zero, levels);
        for (int i = 0; i < count; i++, at += step)
            *at = levels[i];
    }
}

/* Packed rows of bytes: channels a few pixels at a time, so that those of a pixel are stored side by side. */
static void read_packed_floats(const ts_tensor *target, const float *row, size_t plane, uint8_t *at, float scale)
{
    enum { RUN = 128, CHANNELS = 3 };
    const ts_tensor_desc *d = &target->desc;
    uint8_t levels[CHANNELS][RUN];
    for (int x = 0; x < d->width; x += RUN) {
        const int count = d->width - x < RUN ? d->width - x : RUN;
        for (int c = 0; c < CHANNELS; c++)
            quantise_run(row + (size_t)c * plane + x, count, scale, d->zero, levels[c]);
        for (int i = 0; i < count; i++, at += CHANNELS) {
            at[0] = levels[0][i];
            at[1] = levels[1][i];
            at[2] = levels[2][i];
        }
    }
}

static void read_f32_row(const ts_tensor *target, const float *image, uint8_t *out, int y, float scale)
{
    const ts_tensor_desc *d = &target->desc;
    const size_t plane = (size_t)d->height * (size_t)d->width;
    if (ts_is_packed(target) && d->dtype == TS_U8 && d->channels == 3) {
        read_packed_floats(target, image + (size_t)y * (size_t)d->width, plane, out + (size_t)y * target->row_bytes, scale);
        return;
    }
    for (int c = 0; c < d->channels; c++) {
        size_t step;
        uint8_t *at = channel_row(target, out, c, y, &step);
        const float *row = image + ((size_t)c * (size_t)d->height + (size_t)y) * (size_t)d->width;
        if (d->dtype == TS_U8)
            read_quantised_row(target, row, at, step, scale);
        else
            for (int x = 0; x < d->width; x++, at += step)
                store_value(target, at, row[x]);
    }
}

/* Packed rows of bytes keep the caller's order: one pass, all channels of a pixel side by side. */
static void read_packed_row(const ts_tensor_desc *d, const uint8_t *pixel, uint8_t *at, const uint8_t *table)
{
    const int channels = d->channels;
    if (channels == 3)
        for (int x = 0; x < d->width; x++, at += 3, pixel += 3) {
            at[0] = table[pixel[0]];
            at[1] = table[256 + pixel[1]];
            at[2] = table[512 + pixel[2]];
        }
    else
        for (int x = 0; x < d->width; x++, at += channels, pixel += channels)
            for (int c = 0; c < channels; c++)
                at[c] = table[256 * c + pixel[c]];
}

/* The same for values of two bytes, [channels][256] of them. */
static void read_packed_halves(const ts_tensor_desc *d, const uint8_t *pixel, uint8_t *at, const uint8_t *table)
{
    for (int x = 0; x < d->width; x++)
        for (int c = 0; c < d->channels; c++, at += 2)
            memcpy(at, table + 2 * (256 * (size_t)c + *pixel++), 2);
}

/* The table holds what normalisation and quantisation make of each of the 256 pixel values, exactly. */
static void read_u8_row(const ts_tensor *target, const uint8_t *image, uint8_t *out, int y, const uint8_t *table)
{
    const ts_tensor_desc *d = &target->desc;
    const size_t element = target->element_bytes;
    if (ts_is_packed(target) && element <= 2) {
        const size_t row = (size_t)y * (size_t)d->width * (size_t)d->channels;
        (element == 1 ? read_packed_row : read_packed_halves)(d, image + row, out + (size_t)y * target->row_bytes, table);
        return;
    }
    for (int c = 0; c < d->channels; c++) {
        size_t step;
        uint8_t *at = channel_row(target, out, c, y, &step);
        const uint8_t *pixel = image + (size_t)y * (size_t)d->width * (size_t)d->channels + c;
        const uint8_t *values = table + (size_t)c * 256 * element;
        if (element == 1)
            for (int x = 0; x < d->width; x++, at += step, pixel += d->channels)
                *at = values[*pixel];
        else
            for (int x = 0; x < d->width; x++, at += step, pixel += d->channels)
                memcpy(at, values + *pixel * element, element);
    }
}

/* Lanes beyond the channels meet zero weights, but must hold numbers: not-a-number times zero is no zero. */
static void clear_spare_lanes(const ts_tensor *target, uint8_t *out, int y)
{
    const int used = target->desc.channels % TS_GROUP;
    if (ts_is_packed(target) || !used)
        return;
    uint8_t *row = out + target->group_offsets[target->groups - 1] + (size_t)y * target->row_bytes;
    for (int x = 0; x < target->desc.width; x++)
        memset(row + (size_t)x * target->pixel_bytes + (size_t)used * target->element_bytes, 0,
               (size_t)(TS_GROUP - used) * target->element_bytes);
}

static void input_run(const ts_step *step, const ts_scope *scope)
{
    const input_data *data = step->data;
    const ts_tensor_desc *d = &step->target->desc;
    const size_t elements = (size_t)d->channels * (size_t)d->height * (size_t)d->width;
    int from, to;
    while (ts_take(scope, scope->count * d->height, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int image = scope->image + unit / d->height, y = unit % d->height;
            uint8_t *out = ts_pixels(step->target, scope, image);
            clear_spare_lanes(step->target, out, y);
            if (scope->input_kind == TS_INPUT_U8_NHWC)
                read_u8_row(step->target, (const uint8_t *)scope->input + (size_t)image * elements, out, y, data->pixel_values);
            else
                read_f32_row(step->target, (const float *)scope->input + (size_t)image * elements, out, y, data->scale);
        }
}

int ts_input_takes_pixels(const ts_step *step)
{
    return ((const input_data *)step->data)->pixel_values != NULL;
}

int ts_program_input(ts_program *program, const ts_input_desc *desc)
{
    const ts_tensor *target = ts_tensor_at(program, desc->target);
    if (!target)
        return -1;
    if (target->desc.dtype == TS_U8 && !(desc->scale > 0))
        return ts_fail(program, "a quantised input needs a positive scale");
    input_data *data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for the input step");
    data->scale = desc->scale;
    if (desc->pixel_values) {
        const size_t bytes = (size_t)target->desc.channels * 256 * target->element_bytes;
        data->pixel_values = malloc(bytes);
        if (!data->pixel_values) {
            free(data);
            return ts_fail(program, "out of memory for the input step");
        }
        memcpy(data->pixel_values, desc->pixel_values, bytes);
    }
    return ts_append(program, (ts_step){.run = input_run, .free = input_free, .data = data, .target = target,
                                        .kind = "input", .kernel = ""});
}

static void output_run(const ts_step *step, const ts_scope *scope)
{
    const ts_tensor *source = step->source;
    const ts_tensor_desc *d = &source->desc;
    const size_t elements = (size_t)d->channels * (size_t)d->height * (size_t)d->width;
    int from, to;
    while (ts_take(scope, scope->count * d->channels, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int image = scope->image + unit / d->channels, c = unit % d->channels;
            const uint8_t *in = ts_pixels(source, scope, image) + ts_channel_offset(source, c);
            float *out = scope->output + (size_t)image * elements + (size_t)c * (size_t)d->height * (size_t)d->width;
            for (int y = 0; y < d->height; y++)
                for (int x = 0; x < d->width; x++)
                    memcpy(out++, in + (size_t)y * source->row_bytes + (size_t)x * source->pixel_bytes, sizeof *out);
        }
}

int ts_program_output(ts_program *program, int source_index)
{
    const ts_tensor *source = ts_tensor_at(program, source_index);
    if (!source)
        return -1;
    if (source->desc.dtype != TS_F32 || ts_is_packed(source))
        return ts_fail(program, "the output step needs a blocked float tensor");
    return ts_append(program, (ts_step){.run = output_run, .source = source, .kind = "output", .kernel = ""});
}
