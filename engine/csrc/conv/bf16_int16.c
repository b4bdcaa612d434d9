/* bfloat16 convolutions in 16-bit whole numbers (kernels/bf16_int16.h): their weights, and their input image by image. */
#include "conv/conv.h"
#include "conv/reduction.h"
#include "conv/rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ts_rows rows;
    ts_conv_ending ending;
    const ts_int16_kernel *kernel;
    int32_t *offsets; /* [groups of the convolution][entries] */
    int entries;
    int row_entries;  /* reduction entries of one kernel row */
    int16_t *weights; /* in the program's region */
    size_t panel_elements, row_elements; /* weights of a panel, and of one kernel row in it */
} whole;

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

static int takes(const ts_conv_problem *problem)
{
    const ts_kernel *kernel = problem->source->desc.dtype == TS_BF16 ? ts_find_kernel(TS_INT16, TS_BF16, problem->features) : NULL;
    if (!kernel || (problem->kernel->features & ~kernel->features)) /* where the CPU knows bfloat16, that is faster */
        return 0;
    for (size_t i = 0; i < (size_t)problem->target->desc.channels * (size_t)problem->filter; i++)
        if (!isfinite(((const float *)problem->desc->weights)[i]))
            return 0;
    return even_columns(problem->desc, problem->target->desc.channels, problem->filter);
}

static void whole_free(void *pointer)
{
    whole *data = pointer;
    if (!data)
        return;
    ts_conv_ending_free(&data->ending);
    free(data->offsets);
    free(data);
}

static int pack_weights(ts_program *program, const ts_conv_problem *problem, whole *data, const ts_reduction *reduction)
{
    const int width = data->kernel->conv.groups * TS_GROUP; /* channels of a panel */
    const int panels = ts_conv_panels(problem, width), filter = problem->filter;
    const size_t panel = (size_t)(reduction->count * width); /* elements */
    const size_t bytes = (size_t)(problem->desc->groups * panels) * panel * sizeof(int16_t);
    data->weights = ts_weights_take(program->weights, bytes);
    if (!data->weights)
        return -1;
    for (int channel = 0; channel < problem->target->desc.channels; channel++) {
        const float *weights = (const float *)problem->desc->weights + (size_t)channel * (size_t)filter;
        const int inner = channel % problem->outputs, block = channel / problem->outputs * panels + inner / width;
        const double unit = unit_of(reduction, weights, filter);
        data->ending.scale[block * width + inner % width] = (float)unit;
        int16_t *at = data->weights + (size_t)block * panel + (size_t)(inner % width) * 2;
        for (int k = 0; k < reduction->count; k++)
            if (reduction->source[k] >= 0 && unit > 0)
                at[(size_t)(k / 2 * width) * 2 + (size_t)(k % 2)] =
                    (int16_t)lrint((double)weights[reduction->source[k]] / unit);
    }
    data->weights = ts_weights_keep(program->weights, data->weights, bytes);
    data->panel_elements = panel;
    data->row_elements = panel / (size_t)problem->desc->kernel_h;
    return 0;
}

/* The scratch holds the images of a scope as in their tensor, each followed by its factor. */
static uint8_t *slot(const ts_step *step, const ts_scope *scope, int image)
{
    return scope->scratch + (size_t)(image - scope->image) * (step->source->image_bytes + TS_ALIGN);
}

/* Rounds the scope's images into this thread's scratch. */
static void prepare(const ts_step *step, const ts_scope *scope)
{
    const ts_tensor *source = step->source;
    const size_t used = source->plane_bytes * (size_t)source->blocks;
    for (int i = 0; i < scope->count; i++) {
        const uint8_t *image = ts_pixels(source, scope, scope->image + i) - source->interior;
        uint8_t *copy = slot(step, scope, scope->image + i);
        const float factor = ((const whole *)step->data)->kernel->quantise(image, used / 2, (int16_t *)(void *)copy);
        memset(copy + used, 0, source->image_bytes - used);
        memcpy(copy + source->image_bytes, &factor, sizeof factor);
    }
}

static const uint8_t *prepared_pixels(const ts_step *step, const ts_scope *scope, int image, float *factor)
{
    const uint8_t *copy = slot(step, scope, image);
    memcpy(factor, copy + step->source->image_bytes, sizeof *factor);
    return copy + step->source->interior;
}

static void reduce(const void *pointer, ts_tile *tile, int panel, int from, int to)
{
    const whole *data = pointer;
    tile->offsets = data->offsets + panel / data->rows.panels * data->entries + from * data->row_entries;
    tile->entries = (to - from) * data->row_entries;
    tile->weights = data->weights + (size_t)panel * data->panel_elements + (size_t)from * data->row_elements;
}

static int build(ts_program *program, const ts_conv_problem *problem, ts_step *step)
{
    const ts_kernel *kernel = ts_find_kernel(TS_INT16, TS_BF16, problem->features);
    whole *data = step->data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a convolution");
    data->kernel = &kernel->int16;
    step->kernel = kernel->name;
    if (ts_conv_ending_build(program, problem, kernel->int16.conv.groups * TS_GROUP, &data->ending))
        return -1;
    data->ending.epilogue.scale = data->ending.scale;
    ts_reduction reduction = {0};
    const int failed = ts_reduction_build(problem, &reduction) || pack_weights(program, problem, data, &reduction);
    data->offsets = reduction.offsets;
    data->entries = reduction.entries;
    data->row_entries = reduction.entries / problem->desc->kernel_h;
    reduction.offsets = NULL;
    ts_reduction_free(&reduction);
    if (failed)
        return ts_fail(program, "out of memory for the weights of a convolution");
    data->rows = ts_rows_of(problem, &kernel->int16.conv, data->panel_elements * sizeof(int16_t));
    data->rows.epilogue = &data->ending.epilogue;
    data->rows.reduce = reduce;
    data->rows.pixels = prepared_pixels;
    data->rows.prepare = prepare;
    const size_t images = (size_t)program->segment_images[program->segment_count - 1];
    const size_t scratch = images * (problem->source->image_bytes + TS_ALIGN);
    program->scratch_bytes = scratch > program->scratch_bytes ? scratch : program->scratch_bytes;
    return 0;
}

static void run(const ts_step *step, const ts_scope *scope)
{
    ts_rows_run(step, scope, &((const whole *)step->data)->rows);
}

const ts_conv_algorithm ts_conv_bf16_int16 = {"bf16_int16", takes, build, run, whole_free};
