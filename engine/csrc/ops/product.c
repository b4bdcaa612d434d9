/* Products: of two images, or of an image and its gates, one number a channel. */
#include "kernels/table.h"
#include "layout/values.h"
#include "run/execution.h"

#include <stdlib.h>

typedef struct {
    ts_product product;
    const ts_kernel *kernel; /* null: element types that differ or have none */
    int gates;               /* the other operand is one pixel */
} product_data;

/* Row by row through floats. */
static void any_row(const ts_step *step, const uint8_t *a, const uint8_t *b, const float *factor, uint8_t *out)
{
    const product_data *data = step->data;
    float x[TS_GROUP], y[TS_GROUP], low, high;
    ts_full_range(step->target, &low, &high);
    for (int pixel = 0; pixel < step->target->desc.width; pixel++) {
        ts_values_load(step->source, a + (size_t)pixel * step->source->pixel_bytes, x);
        if (!factor)
            ts_values_load(step->other, b + (size_t)pixel * step->other->pixel_bytes, y);
        for (int lane = 0; lane < TS_GROUP; lane++)
            x[lane] *= factor ? factor[lane] : y[lane] * data->product.scale;
        ts_values_store(step->target, out + (size_t)pixel * step->target->pixel_bytes, x, low, high);
    }
}

static void product_run(const ts_step *step, const ts_scope *scope)
{
    const int height = step->target->desc.height, groups = step->target->groups;
    const product_data *data = step->data;
    float factors[TS_GROUP];
    int from, to;
    while (ts_take(scope, scope->count * groups * height, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int y = unit % height, group = unit / height % groups, image = scope->image + unit / height / groups;
            const uint8_t *a = ts_row(step->source, scope, image, group, y);
            const uint8_t *b = ts_row(step->other, scope, image, group, data->gates ? 0 : y);
            uint8_t *out = ts_row(step->target, scope, image, group, y);
            if (data->gates) {
                ts_values_load(step->other, b, factors);
                for (int lane = 0; lane < TS_GROUP; lane++)
                    factors[lane] *= data->product.scale;
            }
            const float *factor = data->gates ? factors : NULL;
            if (data->kernel)
                data->kernel->product(&data->product, a, b, factor, out, step->target->desc.width);
            else
                any_row(step, a, b, factor, out);
        }
}

int ts_program_product(ts_program *program, int source_index, int other_index, int target_index, float scale)
{
    const ts_tensor *source = ts_tensor_at(program, source_index), *other = ts_tensor_at(program, other_index);
    const ts_tensor *target = ts_tensor_at(program, target_index);
    if (!source || !other || !target)
        return -1;
    const int same = ts_same_shape(source, other);
    const int gates = !same && !ts_is_packed(other) && other->desc.channels == source->desc.channels && other->desc.height == 1 &&
                      other->desc.width == 1;
    if (!ts_same_shape(source, target) || !(same || gates))
        return ts_fail(program, "a product needs blocked tensors of one shape, or one pixel of as many channels");
    product_data *data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a product");
    data->gates = gates;
    data->product = (ts_product){
        .scale = scale, .a_zero = source->desc.zero, .b_zero = other->desc.zero, .out_zero = target->desc.zero,
        .a_step = (ptrdiff_t)source->pixel_bytes, .b_step = (ptrdiff_t)other->pixel_bytes, .out_step = (ptrdiff_t)target->pixel_bytes};
    if (source->desc.dtype == target->desc.dtype && (gates || other->desc.dtype == source->desc.dtype))
        data->kernel = ts_find_kernel(TS_PRODUCT, source->desc.dtype, program->features);
    return ts_append(program, (ts_step){.run = product_run, .free = free, .data = data, .source = source, .other = other,
                                        .target = target, .kind = "product", .kernel = data->kernel ? data->kernel->name : ""});
}
