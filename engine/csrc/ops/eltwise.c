/* Elementwise steps that could not be fused into a convolution: addition, clamp, conversion. */
#include "kernels/table.h"
#include "layout/values.h"
#include "run/execution.h"

#include <stdlib.h>

typedef struct {
    ts_eltwise_desc desc;
    const ts_kernel *add; /* null: anything but the sum of two u8 tensors stored as u8 */
    ts_addition addition;
    const ts_kernel *quantise; /* null: anything but one tensor of floats stored as u8 */
    ts_quantisation quantisation;
} eltwise_data;

static void eltwise_row(const ts_step *step, const ts_eltwise_desc *d, const uint8_t *a, const uint8_t *b, uint8_t *out)
{
    float x[TS_GROUP], y[TS_GROUP];
    for (int pixel = 0; pixel < step->target->desc.width; pixel++) {
        ts_values_load(step->source, a + (size_t)pixel * step->source->pixel_bytes, x);
        for (int lane = 0; lane < TS_GROUP; lane++)
            x[lane] *= d->source_scale;
        if (step->other) {
            ts_values_load(step->other, b + (size_t)pixel * step->other->pixel_bytes, y);
            for (int lane = 0; lane < TS_GROUP; lane++)
                x[lane] += y[lane] * d->other_scale;
        }
        ts_values_store(step->target, out + (size_t)pixel * step->target->pixel_bytes, x, d->low, d->high);
    }
}

static void eltwise_run(const ts_step *step, const ts_scope *scope)
{
    const int height = step->target->desc.height, groups = step->target->groups;
    const eltwise_data *data = step->data;
    int from, to;
    while (ts_take(scope, scope->count * groups * height, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int y = unit % height, group = unit / height % groups, image = scope->image + unit / height / groups;
            const uint8_t *a = ts_row(step->source, scope, image, group, y);
            const uint8_t *b = step->other ? ts_row(step->other, scope, image, group, y) : NULL;
            uint8_t *out = ts_row(step->target, scope, image, group, y);
            if (data->add)
                data->add->addition(&data->addition, a, b, out, step->target->desc.width);
            else if (data->quantise)
                data->quantise->quantisation(&data->quantisation, a, out, step->target->desc.width);
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
        data->add = ts_find_kernel(TS_ADDITION, TS_U8, program->features);
        data->addition = (ts_addition){
            .a_scale = desc->source_scale, .b_scale = desc->other_scale, .low = desc->low, .high = desc->high,
            .a_zero = source->desc.zero, .b_zero = other->desc.zero, .out_zero = target->desc.zero,
            .a_step = (ptrdiff_t)source->pixel_bytes, .b_step = (ptrdiff_t)other->pixel_bytes,
            .out_step = (ptrdiff_t)target->pixel_bytes};
    }
    if (!other && source->desc.dtype != TS_U8 && target->desc.dtype == TS_U8) {
        data->quantise = ts_find_kernel(TS_QUANTISATION, source->desc.dtype, program->features);
        data->quantisation = (ts_quantisation){
            .scale = desc->source_scale, .low = desc->low, .high = desc->high, .zero = target->desc.zero,
            .in_step = (ptrdiff_t)source->pixel_bytes, .out_step = (ptrdiff_t)target->pixel_bytes};
    }
    return ts_append(program, (ts_step){.run = eltwise_run, .free = free, .data = data, .source = source,
                                        .other = other, .target = target, .kind = other ? "add" : "convert",
                                        .kernel = data->add ? data->add->name : data->quantise ? data->quantise->name : ""});
}
