/* Elementwise steps that could not be fused into a convolution: addition, clamp, conversion. */
#include "kernels/add_kernels.h"
#include "layout/values.h"
#include "run/execution.h"
#include "kernels/quantise_kernels.h"

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
    const int height = step->target->desc.height, planes = step->target->blocks;
    const eltwise_data *data = step->data;
    int from, to;
    while (ts_take(scope, scope->count * planes * height, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int y = unit % height, plane = unit / height % planes, image = scope->image + unit / height / planes;
            const uint8_t *a = ts_row(step->source, scope, image, plane, y);
            const uint8_t *b = step->other ? ts_row(step->other, scope, image, plane, y) : NULL;
            uint8_t *out = ts_row(step->target, scope, image, plane, y);
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
