/* Steps that could not be fused into a convolution: addition, clamp, conversion, flatten, softmax. */
#include "add_kernels.h"
#include "lanes.h"
#include "quantise_kernels.h"

#include <stdlib.h>

typedef struct {
    ts_eltwise_desc desc;
    const ts_add_kernel *add; /* null: anything but the sum of two u8 tensors stored as u8 */
    ts_add_parameters parameters;
    const ts_quantise_kernel *quantise; /* null: anything but one bfloat16 tensor stored as u8 */
    ts_quantise_parameters quantise_parameters;
} eltwise_data;

static void eltwise_row(const ts_step *step, const ts_eltwise_desc *d, const uint8_t *a, const uint8_t *b, uint8_t *out)
{
    float x[TS_LANES], y[TS_LANES];
    for (int pixel = 0; pixel < step->target->desc.width; pixel++) {
        ts_lanes_load(step->source, a + (size_t)pixel * step->source->pixel_bytes, x);
        for (int lane = 0; lane < TS_LANES; lane++)
            x[lane] *= d->source_scale;
        if (step->other) {
            ts_lanes_load(step->other, b + (size_t)pixel * step->other->pixel_bytes, y);
            for (int lane = 0; lane < TS_LANES; lane++)
                x[lane] += y[lane] * d->other_scale;
        }
        ts_lanes_store(step->target, out + (size_t)pixel * step->target->pixel_bytes, x, d->low, d->high);
    }
}

static const uint8_t *row_of(const ts_tensor *tensor, const ts_scope *scope, int image, int plane, int y)
{
    return ts_pixels(tensor, scope, image) + (size_t)plane * tensor->plane_bytes + (size_t)y * tensor->row_bytes;
}

static void eltwise_run(const ts_step *step, const ts_scope *scope)
{
    const int height = step->target->desc.height, planes = step->target->blocks;
    const eltwise_data *data = step->data;
    int from, to;
    while (ts_take(scope, scope->count * planes * height, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int y = unit % height, plane = unit / height % planes, image = scope->image + unit / height / planes;
            const uint8_t *a = row_of(step->source, scope, image, plane, y);
            const uint8_t *b = step->other ? row_of(step->other, scope, image, plane, y) : NULL;
            uint8_t *out = (uint8_t *)row_of(step->target, scope, image, plane, y);
            if (data->add)
                data->add->run(&data->parameters, a, b, out, step->target->desc.width);
            else if (data->quantise)
                data->quantise->run(&data->quantise_parameters, a, out, step->target->desc.width);
            else
                eltwise_row(step, &data->desc, a, b, out);
        }
}

int ts_program_eltwise(ts_program *program, const ts_eltwise_desc *desc)
{
    const ts_tensor *source = ts_tensor_at(program, desc->source), *target = ts_tensor_at(program, desc->target);
    const ts_tensor *other = desc->other >= 0 ? ts_tensor_at(program, desc->other) : NULL;
    if (!source || !target || (desc->other >= 0 && !other))
        return -1;
    if (!ts_same_shape(source, target) || (other && !ts_same_shape(other, target)))
        return ts_fail(program, "an elementwise step needs blocked tensors of one shape");
    eltwise_data *data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for an elementwise step");
    data->desc = *desc;
    if (other && source->desc.dtype == TS_U8 && other->desc.dtype == TS_U8 && target->desc.dtype == TS_U8) {
        data->add = ts_find_add_kernel(program->features);
        data->parameters = (ts_add_parameters){desc->source_scale, desc->other_scale, desc->low, desc->high,
                                               source->desc.zero, other->desc.zero, target->desc.zero};
    }
    if (!other && source->desc.dtype == TS_BF16 && target->desc.dtype == TS_U8) {
        data->quantise = ts_find_quantise_kernel(program->features);
        data->quantise_parameters = (ts_quantise_parameters){desc->source_scale, desc->low, desc->high, target->desc.zero};
    }
    return ts_append(program, (ts_step){.run = eltwise_run, .free = free, .data = data, .source = source,
                                        .other = other, .target = target, .kind = other ? "add" : "convert",
                                        .kernel = data->add ? data->add->name : data->quantise ? data->quantise->name : ""});
}

/* [channels][height][width] becomes channels of one pixel, in that order. */
static void flatten_run(const ts_step *step, const ts_scope *scope)
{
    const ts_tensor *source = step->source, *target = step->target;
    const size_t element = source->element_bytes;
    const int area = source->desc.height * source->desc.width;
    int from, to;
    while (ts_take(scope, scope->count, &from, &to))
        for (int i = from; i < to; i++) {
            const uint8_t *in = ts_pixels(source, scope, scope->image + i);
            uint8_t *out = ts_pixels(target, scope, scope->image + i);
            for (int c = 0; c < source->desc.channels; c++)
                for (int p = 0; p < area; p++) {
                    const size_t pixel = (size_t)(p / source->desc.width) * source->row_bytes +
                                         (size_t)(p % source->desc.width) * source->pixel_bytes;
                    const uint8_t *from_channel =
                        in + (size_t)(c / TS_LANES) * source->plane_bytes + pixel + (size_t)(c % TS_LANES) * element;
                    memcpy(out + ((size_t)c * (size_t)area + (size_t)p) * element, from_channel, element);
                }
            const size_t used = (size_t)source->desc.channels * (size_t)area;
            memset(out + used * element, 0, ((size_t)target->blocks * TS_LANES - used) * element);
        }
}

int ts_program_flatten(ts_program *program, int source_index, int target_index)
{
    const ts_tensor *source = ts_tensor_at(program, source_index), *target = ts_tensor_at(program, target_index);
    if (!source || !target)
        return -1;
    const ts_tensor_desc *in = &source->desc, *out = &target->desc;
    if (in->packed || out->packed || in->dtype != out->dtype || out->height != 1 || out->width != 1 ||
        out->top || out->left || out->bottom || out->right || in->zero != out->zero ||
        (int64_t)in->channels * in->height * in->width != out->channels)
        return ts_fail(program, "flatten keeps elements and type and yields one pixel");
    return ts_append(program, (ts_step){.run = flatten_run, .source = source, .target = target, .kind = "flatten",
                                        .kernel = ""});
}

/* Over the channels of each pixel; float tensors only. */
static void softmax_run(const ts_step *step, const ts_scope *scope)
{
    const ts_tensor *source = step->source, *target = step->target;
    const int channels = source->desc.channels, area = source->desc.height * source->desc.width;
    int from, to;
    while (ts_take(scope, scope->count * area, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int image = scope->image + unit / area, y = unit % area / source->desc.width, x = unit % source->desc.width;
            float largest = -INFINITY, total = 0.0f;
            for (int pass = 0; pass < 3; pass++)
                for (int c = 0; c < channels; c++) {
                    const size_t lane = (size_t)(c % TS_LANES) * sizeof(float);
                    const uint8_t *in = row_of(source, scope, image, c / TS_LANES, y) + (size_t)x * source->pixel_bytes + lane;
                    uint8_t *out =
                        (uint8_t *)row_of(target, scope, image, c / TS_LANES, y) + (size_t)x * target->pixel_bytes + lane;
                    float value;
                    memcpy(&value, pass < 2 ? in : out, sizeof value);
                    if (pass == 0) {
                        largest = value > largest ? value : largest;
                    } else if (pass == 1) {
                        value = expf(value - largest);
                        total += value;
                        memcpy(out, &value, sizeof value);
                    } else {
                        value /= total;
                        memcpy(out, &value, sizeof value);
                    }
                }
        }
}

int ts_program_softmax(ts_program *program, int source_index, int target_index)
{
    const ts_tensor *source = ts_tensor_at(program, source_index), *target = ts_tensor_at(program, target_index);
    if (!source || !target)
        return -1;
    if (!ts_same_shape(source, target) || source->desc.dtype != TS_F32 || target->desc.dtype != TS_F32)
        return ts_fail(program, "softmax needs float tensors of one shape");
    return ts_append(program, (ts_step){.run = softmax_run, .source = source, .target = target, .kind = "softmax",
                                        .kernel = ""});
}
