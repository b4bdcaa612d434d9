/* How a convolution ends: biases with folded zero points, scales, clamps. */
#include "conv/problem.h"

#include <math.h>
#include <stdlib.h>

/* Position of an output channel in bias and scale, which are padded group by group to whole panels. */
static size_t padded_channel(const ts_conv_problem *problem, int panel_channels, int channel)
{
    const int group = channel / problem->outputs;
    return (size_t)(group * ts_conv_panels(problem, panel_channels) * panel_channels + channel % problem->outputs);
}

/* Integer bias with the source's zero point folded in: sum(w * (x - z)) = sum(w * x) - z * sum(w), the frame being z. */
static int integer_bias(ts_program *program, const ts_conv_problem *problem, int panel_channels, ts_conv_ending *ending)
{
    const ts_conv_desc *desc = problem->desc;
    for (int oc = 0; oc < problem->target->desc.channels; oc++) {
        int64_t sum = 0, magnitude = 0;
        for (int i = 0; i < problem->filter; i++) {
            const int weight = ts_weight_sum(problem, (size_t)oc * (size_t)problem->filter + (size_t)i);
            sum += weight;
            magnitude += abs(weight);
        }
        const int64_t value = ((const int32_t *)desc->bias)[oc] - sum * problem->source->desc.zero;
        const int64_t largest = 255 * magnitude + llabs(value);
        const float scale = desc->scale[oc];
        if (largest > INT32_MAX)
            return ts_fail(program, "output channel %d could overflow 32-bit sums", oc);
        if (!(scale >= 0) || (double)largest * (double)scale + 256 * (double)fabsf(desc->residual_scale) > 1e9)
            return ts_fail(program, "output channel %d has a scale of %g, which cannot be represented", oc, (double)scale);
        const size_t at = padded_channel(problem, panel_channels, oc);
        ((int32_t *)ending->bias)[at] = (int32_t)value;
        ending->scale[at] = scale;
    }
    return 0;
}

static int clamp_byte(float value)
{
    return value < 0 ? 0 : value > 255 ? 255 : (int)value;
}

static ts_epilogue epilogue_of(const ts_conv_problem *problem)
{
    const ts_conv_desc *desc = problem->desc;
    const ts_tensor_desc *target = &problem->target->desc;
    ts_epilogue epilogue = {
        .out_dtype = target->dtype, .out_zero = target->zero, .low = clamp_byte(desc->low), .high = clamp_byte(desc->high),
        .float_low = desc->low, .float_high = desc->high, .residual_scale = desc->residual_scale};
    if (problem->residual) {
        epilogue.residual_dtype = problem->residual->desc.dtype;
        epilogue.residual_zero = problem->residual->desc.zero;
    }
    epilogue.plain = epilogue.out_dtype == TS_U8 && epilogue.out_zero == 0 && epilogue.low == 0 && epilogue.high == 255 &&
                     epilogue.residual_dtype == TS_U8 && epilogue.residual_zero == 0;
    epilogue.whole_residual = epilogue.plain && problem->residual && epilogue.residual_scale == 1.0f;
    return epilogue;
}

int ts_conv_ending_build(ts_program *program, const ts_conv_problem *problem, int panel_channels, ts_conv_ending *ending)
{
    const size_t padded = (size_t)problem->desc->groups * (size_t)ts_conv_panels(problem, panel_channels) * (size_t)panel_channels;
    ending->bias = calloc(padded, 4);
    ending->scale = calloc(padded, sizeof *ending->scale);
    if (!ending->bias || !ending->scale)
        return ts_fail(program, "out of memory for the parameters of a convolution");
    ending->epilogue = epilogue_of(problem);
    ending->epilogue.bias = ending->bias;
    if (problem->source->desc.dtype == TS_U8) {
        ending->epilogue.scale = ending->scale;
        return integer_bias(program, problem, panel_channels, ending);
    }
    for (int oc = 0; oc < problem->target->desc.channels; oc++)
        ((float *)ending->bias)[padded_channel(problem, panel_channels, oc)] = ((const float *)problem->desc->bias)[oc];
    return 0;
}

void ts_conv_ending_free(ts_conv_ending *ending)
{
    free(ending->scale);
    free(ending->bias);
}
