/* Steps over the channels of pixels: flatten and softmax. */
#include "layout/values.h"
#include "run/execution.h"

#include <math.h>

/* [channels][height][width] becomes channels of one pixel, in that order: one pixel has its channels side by side whatever C0. */
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
                    memcpy(out + ((size_t)c * (size_t)area + (size_t)p) * element, in + ts_channel_offset(source, c) + pixel, element);
                }
            const size_t used = (size_t)source->desc.channels * (size_t)area;
            memset(out + used * element, 0, ((size_t)target->groups * TS_GROUP - used) * element);
        }
}

int ts_program_flatten(ts_program *program, int source_index, int target_index)
{
    const ts_tensor *source = ts_tensor_at(program, source_index), *target = ts_tensor_at(program, target_index);
    if (!source || !target)
        return -1;
    const ts_tensor_desc *in = &source->desc, *out = &target->desc;
    if (ts_is_packed(source) || ts_is_packed(target) || in->dtype != out->dtype || out->height != 1 || out->width != 1 ||
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
            const uint8_t *source_pixel = ts_row(source, scope, image, 0, y) + (size_t)x * source->pixel_bytes;
            uint8_t *target_pixel = ts_row(target, scope, image, 0, y) + (size_t)x * target->pixel_bytes;
            float largest = -INFINITY, total = 0.0f;
            for (int pass = 0; pass < 3; pass++)
                for (int c = 0; c < channels; c++) {
                    const uint8_t *in = source_pixel + ts_channel_offset(source, c);
                    uint8_t *out = target_pixel + ts_channel_offset(target, c);
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
