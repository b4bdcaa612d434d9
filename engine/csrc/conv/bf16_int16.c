/* bfloat16 convolutions in 16-bit whole numbers (bf16_int16.h): their weights, and their input image by image. */
#include "conv/conv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The largest sum of magnitudes of the weights of one filter that meet in one 32-bit sum, wherever it begins. */
static double largest_span(const ts_reduction *order, const float *filter)
{
    double sum = 0, largest = 0;
    for (int k = 0; k < order->count; k++) {
        sum += order->source[k] >= 0 ? fabs((double)filter[order->source[k]]) : 0;
        if (k >= TS_INT16_SPAN)
            sum -= order->source[k - TS_INT16_SPAN] >= 0 ? fabs((double)filter[order->source[k - TS_INT16_SPAN]]) : 0;
        largest = sum > largest ? sum : largest;
    }
    return largest;
}

/* The value of one unit of a filter's weights: rounding up adds at most half a unit to each. */
static double unit_of(const ts_reduction *order, const float *filter, int elements)
{
    const double room = (double)INT32_MAX / TS_INT16_LIMIT - TS_INT16_SPAN;
    double largest = 0;
    for (int i = 0; i < elements; i++)
        largest = fabs((double)filter[i]) > largest ? fabs((double)filter[i]) : largest;
    const double by_sum = largest_span(order, filter) / room, by_range = largest / INT16_MAX;
    return by_sum > by_range ? by_sum : by_range;
}

/*
 * Whether no input channel of a group is read with far smaller weights than another. Such a channel may hold far larger
 * values without mattering more, and would set the scale of its image: all others lose as many bits as it is larger. Up to
 * this ratio they keep the eight that bfloat16 has.
 */
static int even_columns(const ts_conv_desc *desc, int channels, int filter)
{
    enum { LARGEST_RATIO = 64 };
    const int taps = desc->kernel_h * desc->kernel_w, outputs = channels / desc->groups;
    for (int group = 0; group < desc->groups; group++) {
        const float *weights = (const float *)desc->weights + (size_t)group * (size_t)outputs * (size_t)filter;
        float least = INFINITY, most = 0;
        for (int input = 0; input < filter / taps; input++) {
            float column = 0;
            for (int output = 0; output < outputs; output++)
                for (int tap = 0; tap < taps; tap++)
                    column = fmaxf(column, fabsf(weights[(size_t)output * (size_t)filter + (size_t)(input * taps + tap)]));
            least = column > 0 && column < least ? column : least;
            most = column > most ? column : most;
        }
        if (most > LARGEST_RATIO * least)
            return 0;
    }
    return 1;
}

int ts_int16_takes(const ts_program *program, const ts_conv *data, const ts_conv_desc *desc, int channels, int filter)
{
    const ts_int16_kernel *int16 = ts_find_int16_kernel(program->features);
    if (!int16 || data->kernel->dtype != TS_BF16 || (data->kernel->features & ~int16->features))
        return 0;
    for (size_t i = 0; i < (size_t)channels * (size_t)filter; i++)
        if (!isfinite(((const float *)desc->weights)[i]))
            return 0;
    return even_columns(desc, channels, filter);
}

int ts_pack_int16(ts_program *program, ts_conv *data, const ts_reduction *order, const ts_conv_desc *desc,
                  const ts_tensor *source, int outputs, int filter)
{
    const size_t panel = (size_t)order->count * TS_GROUP; /* elements */
    const size_t bytes = (size_t)(data->groups * data->panels) * panel * sizeof(int16_t);
    int16_t *packed = ts_region_take(&program->weights, bytes);
    if (!packed)
        return -1;
    program->weight_bytes += bytes;
    for (int channel = 0; channel < data->groups * outputs; channel++) {
        const float *weights = (const float *)desc->weights + (size_t)channel * (size_t)filter;
        const int inner = channel % outputs, block = channel / outputs * data->panels + inner / TS_GROUP;
        const double unit = unit_of(order, weights, filter);
        data->scale[block * TS_GROUP + inner % TS_GROUP] = (float)unit;
        int16_t *at = packed + (size_t)block * panel + (size_t)(inner % TS_GROUP) * 2;
        for (int k = 0; k < order->count; k++)
            if (order->source[k] >= 0 && unit > 0)
                at[(size_t)(k / 2) * TS_GROUP * 2 + (size_t)(k % 2)] = (int16_t)lrint((double)weights[order->source[k]] / unit);
    }
    data->weights = (uint8_t *)packed;
    data->panel_bytes = panel * sizeof(int16_t);
    data->epilogue.scale = data->scale;
    const size_t images = (size_t)program->segment_images[program->segment_count - 1];
    const size_t scratch = images * (source->image_bytes + TS_ALIGN);
    program->scratch_bytes = scratch > program->scratch_bytes ? scratch : program->scratch_bytes;
    return 0;
}

/* The scratch holds the images of a scope as in their tensor, each followed by its factor. */
static uint8_t *slot(const ts_step *step, const ts_scope *scope, int image)
{
    return scope->scratch + (size_t)(image - scope->image) * (step->source->image_bytes + TS_ALIGN);
}

void ts_int16_prepare(const ts_step *step, const ts_scope *scope)
{
    const ts_tensor *source = step->source;
    const size_t used = source->plane_bytes * (size_t)source->blocks;
    for (int i = 0; i < scope->count; i++) {
        const uint8_t *image = ts_pixels(source, scope, scope->image + i) - source->interior;
        uint8_t *copy = slot(step, scope, scope->image + i);
        const float factor = ((const ts_conv *)step->data)->int16->quantise(image, used / 2, (int16_t *)(void *)copy);
        memset(copy + used, 0, source->image_bytes - used);
        memcpy(copy + source->image_bytes, &factor, sizeof factor);
    }
}

const uint8_t *ts_int16_pixels(const ts_step *step, const ts_scope *scope, int image, float *factor)
{
    const uint8_t *copy = slot(step, scope, image);
    memcpy(factor, copy + step->source->image_bytes, sizeof *factor);
    return copy + step->source->interior;
}
