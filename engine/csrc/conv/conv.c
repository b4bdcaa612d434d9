/* Building a convolution step: reduction, packed weights, folded biases, epilogue. */
#include "conv/conv.h"
#include "layout/bf16.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void conv_free(void *pointer)
{
    ts_conv *data = pointer;
    if (!data)
        return;
    free(data->offsets);
    free(data->chained);
    free(data->scale);
    free(data->bias);
    free(data);
}

/*
 * Reduction order: kernel rows, then columns, then channel blocks, so that the window of a row of pixels stays in L1.
 * Packed tensors put columns and channels of one kernel row side by side in memory already.
 */
static int build_reduction(ts_conv *data, ts_reduction *order, const ts_conv_desc *desc, const ts_tensor *source)
{
    const int per_entry = TS_STEP_BYTES / (int)source->element_bytes;
    const int inputs = source->desc.channels / data->groups;
    const int taps = desc->kernel_h * desc->kernel_w;
    const int blocks = source->desc.packed ? 1 : ts_ceil_div(inputs, TS_GROUP);
    const int run = source->desc.packed ? desc->kernel_w * inputs : TS_GROUP;
    const int run_entries = ts_ceil_div(run, per_entry);
    const int runs = source->desc.packed ? desc->kernel_h : taps * blocks;
    data->entries = runs * run_entries;
    order->count = data->entries * per_entry;
    data->offsets = malloc((size_t)data->entries * sizeof *data->offsets);
    order->source = malloc((size_t)order->count * sizeof *order->source);
    if (!data->offsets || !order->source)
        return -1;
    for (int r = 0; r < runs; r++) {
        const int block = r % blocks, tap = r / blocks;
        const int row = source->desc.packed ? tap : tap / desc->kernel_w;
        const int column = source->desc.packed ? 0 : tap % desc->kernel_w;
        const ptrdiff_t start = (ptrdiff_t)(block * (ptrdiff_t)source->plane_bytes +
                                            row * desc->dilation_h * (ptrdiff_t)source->row_bytes +
                                            column * desc->dilation_w * (ptrdiff_t)source->pixel_bytes);
        if (start + run_entries * TS_STEP_BYTES > INT32_MAX)
            return -1;
        for (int e = 0; e < run_entries; e++)
            data->offsets[r * run_entries + e] = (int32_t)start + e * TS_STEP_BYTES;
        for (int i = 0; i < run_entries * per_entry; i++) {
            const int x = source->desc.packed ? i / inputs : column;
            const int channel = source->desc.packed ? i % inputs : block * TS_GROUP + i;
            const int outside = i >= run || channel >= inputs;
            order->source[r * run_entries * per_entry + i] =
                outside ? -1 : (channel * desc->kernel_h + row) * desc->kernel_w + x;
        }
    }
    return 0;
}

/* One element of the packed panel; `at` counts elements. */
static void put_weight(const ts_conv *data, uint8_t *panel, size_t at, const void *weights, size_t index)
{
    if (data->kernel->dtype == TS_F32)
        memcpy(panel + 4 * at, (const float *)weights + index, 4);
    else if (data->kernel->dtype == TS_BF16)
        ts_bf16_store(panel + 2 * at, ((const float *)weights)[index]);
    else
        panel[at] = (uint8_t)((const int8_t *)weights)[index];
}

static size_t packed_bytes(const ts_kernel *kernel)
{
    return kernel->dtype == TS_F32 ? 4 : kernel->dtype == TS_BF16 ? 2 : 1;
}

static int pack_weights(ts_program *program, ts_conv *data, const ts_reduction *order, const ts_conv_desc *desc,
                        const ts_tensor *source, int outputs, int filter)
{
    if (data->int16)
        return ts_pack_int16(program, data, order, desc, source, outputs, filter);
    if (data->kernel->packing == TS_PACK_CHAINS)
        return ts_pack_chains(program, data, order, desc->weights, outputs, filter);
    const int blocks = data->kernel->blocks;
    const int dword = 4 / (data->kernel->dtype == TS_F32 ? 4 : data->kernel->dtype == TS_BF16 ? 2 : 1);
    const int width = blocks * TS_GROUP; /* output channels of a panel */
    data->panel_bytes = (size_t)order->count * (size_t)width * packed_bytes(data->kernel);
    const size_t bytes = (size_t)data->groups * (size_t)data->panels * data->panel_bytes;
    program->weight_bytes += bytes;
    data->weights = ts_region_take(&program->weights, bytes);
    if (!data->weights)
        return -1;
    for (int group = 0; group < data->groups; group++)
        for (int oc = 0; oc < outputs; oc++) {
            uint8_t *panel = data->weights + (size_t)(group * data->panels + oc / width) * data->panel_bytes;
            const int block = oc % width / TS_GROUP, lane = oc % TS_GROUP;
            const size_t base = ((size_t)group * (size_t)outputs + (size_t)oc) * (size_t)filter;
            for (int k = 0; k < order->count; k++) {
                const size_t at = (((size_t)(k / dword) * (size_t)blocks + (size_t)block) * TS_GROUP + (size_t)lane) *
                                      (size_t)dword + (size_t)(k % dword);
                if (order->source[k] >= 0)
                    put_weight(data, panel, at, desc->weights, base + (size_t)order->source[k]);
            }
        }
    return 0;
}

/* Position of an output channel in bias and scale, which are padded group by group to whole panels. */
static size_t padded_channel(const ts_conv *data, int outputs, int channel)
{
    const int group = channel / outputs;
    return (size_t)(group * data->panels * data->kernel->blocks * TS_GROUP + channel % outputs);
}

/*
 * Integer bias with the source's zero point folded in: sum(w * (x - z)) = sum(w * x) - z * sum(w), the frame being z.
 * Refuses sums that could leave 32 bits, and outputs that could leave what cvtps2dq represents.
 */
static int integer_bias(ts_program *program, ts_conv *data, const ts_conv_desc *desc, const ts_tensor *source,
                        int channels, int outputs, int filter)
{
    int32_t *bias = data->bias;
    for (int oc = 0; oc < channels; oc++) {
        const int8_t *weights = (const int8_t *)desc->weights + (size_t)oc * (size_t)filter;
        int64_t sum = 0, magnitude = 0;
        for (int i = 0; i < filter; i++) {
            sum += weights[i];
            magnitude += abs(weights[i]);
        }
        const int64_t value = ((const int32_t *)desc->bias)[oc] - sum * source->desc.zero;
        const int64_t largest = 255 * magnitude + llabs(value);
        const float scale = desc->scale[oc];
        if (largest > INT32_MAX)
            return ts_fail(program, "output channel %d could overflow 32-bit sums", oc);
        if (!(scale >= 0) || (double)largest * (double)scale + 256 * (double)fabsf(desc->residual_scale) > 1e9)
            return ts_fail(program, "output channel %d has a scale of %g, which cannot be represented", oc, (double)scale);
        const size_t at = padded_channel(data, outputs, oc);
        bias[at] = (int32_t)value;
        data->scale[at] = scale;
    }
    return 0;
}

static int build_parameters(ts_program *program, ts_conv *data, const ts_conv_desc *desc, const ts_tensor *source,
                            int channels, int outputs, int filter)
{
    const size_t padded = (size_t)data->groups * (size_t)data->panels * (size_t)data->kernel->blocks * TS_GROUP;
    data->bias = calloc(padded, 4);
    data->scale = calloc(padded, sizeof *data->scale);
    if (!data->bias || !data->scale)
        return ts_fail(program, "out of memory for the parameters of a convolution");
    data->epilogue.bias = data->bias;
    if (data->kernel->dtype == TS_U8) {
        data->epilogue.scale = data->scale;
        return integer_bias(program, data, desc, source, channels, outputs, filter);
    }
    for (int oc = 0; oc < channels; oc++)
        ((float *)data->bias)[padded_channel(data, outputs, oc)] = ((const float *)desc->bias)[oc];
    return 0;
}

static int clamp_byte(float value)
{
    return value < 0 ? 0 : value > 255 ? 255 : (int)value;
}

static void build_epilogue(ts_epilogue *epilogue, const ts_conv_desc *desc, const ts_tensor *target,
                           const ts_tensor *residual)
{
    epilogue->out_dtype = target->desc.dtype;
    epilogue->out_zero = target->desc.zero;
    epilogue->low = clamp_byte(desc->low);
    epilogue->high = clamp_byte(desc->high);
    epilogue->float_low = desc->low;
    epilogue->float_high = desc->high;
    epilogue->residual_scale = desc->residual_scale;
    if (residual) {
        epilogue->residual_dtype = residual->desc.dtype;
        epilogue->residual_zero = residual->desc.zero;
    }
    epilogue->plain = epilogue->out_dtype == TS_U8 && epilogue->out_zero == 0 && epilogue->low == 0 &&
                      epilogue->high == 255 && epilogue->residual_dtype == TS_U8 && epilogue->residual_zero == 0;
}

static int check_geometry(ts_program *program, const ts_conv_desc *d, const ts_tensor *source, const ts_tensor *target,
                          const ts_tensor *residual)
{
    const ts_tensor_desc *in = &source->desc, *out = &target->desc;
    const int reach_h = (out->height - 1) * d->stride_h + (d->kernel_h - 1) * d->dilation_h + 1;
    const int reach_w = (out->width - 1) * d->stride_w + (d->kernel_w - 1) * d->dilation_w + 1;
    if (d->kernel_h < 1 || d->kernel_w < 1 || d->stride_h < 1 || d->stride_w < 1 || d->dilation_h < 1 ||
        d->dilation_w < 1 || d->pad_top < 0 || d->pad_left < 0 || d->groups < 1)
        return ts_fail(program, "a convolution with impossible kernel, stride, dilation, padding or groups");
    if (in->top < d->pad_top || in->left < d->pad_left || reach_h - d->pad_top > in->height + in->bottom ||
        reach_w - d->pad_left > in->width + in->right)
        return ts_fail(program, "a convolution reads beyond the frame of its input");
    if (out->packed || in->channels % d->groups || out->channels % d->groups)
        return ts_fail(program, "a convolution's channels do not divide into %d groups", d->groups);
    if (d->groups > 1 && (in->channels / d->groups % TS_GROUP || out->channels / d->groups % TS_GROUP))
        return ts_fail(program, "channels per group must be multiples of %d", TS_GROUP);
    if (in->packed && (d->dilation_w != 1 || d->groups != 1))
        return ts_fail(program, "a packed input allows neither dilation along rows nor groups");
    if (residual && (residual->desc.packed || residual->desc.channels != out->channels ||
                     residual->desc.height != out->height || residual->desc.width != out->width))
        return ts_fail(program, "the residual's shape is not the output's");
    if (in->dtype != TS_U8 && out->dtype == TS_U8)
        return ts_fail(program, "a floating-point convolution cannot write u8");
    return 0;
}

int ts_program_conv(ts_program *program, const ts_conv_desc *desc)
{
    const ts_tensor *source = ts_tensor_at(program, desc->source), *target = ts_tensor_at(program, desc->target);
    const ts_tensor *residual = desc->residual >= 0 ? ts_tensor_at(program, desc->residual) : NULL;
    if (!source || !target || (desc->residual >= 0 && !residual))
        return -1;
    if (check_geometry(program, desc, source, target, residual))
        return -1;
    ts_conv *data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a convolution");
    const int outputs = target->desc.channels / desc->groups;
    const int filter = source->desc.channels / desc->groups * desc->kernel_h * desc->kernel_w;
    ts_reduction order = {0};
    data->kernel = ts_choose_kernel(source->desc.dtype, program->features, target->desc.width);
    if (ts_int16_takes(program, data, desc, target->desc.channels, filter)) {
        data->int16 = ts_find_int16_kernel(program->features);
        data->kernel = &data->int16->kernel;
    }
    data->stride_h = desc->stride_h;
    data->stride_w = desc->stride_w;
    data->kernel_h = desc->kernel_h;
    data->dilation_h = desc->dilation_h;
    data->pad_top = desc->pad_top;
    data->pad_left = desc->pad_left;
    data->skip_padding = source->desc.zero == 0;
    data->groups = desc->groups;
    data->panels = ts_ceil_div(outputs, data->kernel->blocks * TS_GROUP);
    data->origin = -((ptrdiff_t)desc->pad_top * (ptrdiff_t)source->row_bytes +
                     (ptrdiff_t)desc->pad_left * (ptrdiff_t)source->pixel_bytes);
    data->group_bytes = source->desc.packed ? 0 : source->plane_bytes * (size_t)(source->blocks / desc->groups);
    build_epilogue(&data->epilogue, desc, target, residual);
    int failed = build_parameters(program, data, desc, source, target->desc.channels, outputs, filter);
    const int winograd = !failed && ts_winograd_takes(program, data, desc, source, target);
    if (!failed && (winograd ? ts_pack_winograd(program, data, desc, source, target)
                             : build_reduction(data, &order, desc, source) || pack_weights(program, data, &order, desc, source, outputs, filter)))
        failed = ts_fail(program, "out of memory for the weights of a convolution");
    free(order.source);
    if (failed) {
        conv_free(data);
        return -1;
    }
    int capacity;
    const ptrdiff_t pixel_step = (ptrdiff_t)source->pixel_bytes * desc->stride_w;
    if (target->desc.width == 7 && data->kernel->select(14, pixel_step, 7, &capacity))
        data->split = 7;
    data->row_entries = data->entries / desc->kernel_h;
    data->row_weight_bytes = data->panel_bytes / (size_t)desc->kernel_h;
    data->rows_first = (size_t)data->panels * data->panel_bytes <= 24 * 1024;
    return ts_append(program, (ts_step){.run = winograd ? ts_winograd_run : ts_conv_run, .free = conv_free, .data = data,
                                        .kind = "conv", .kernel = winograd ? data->winograd.kernel->name : data->kernel->name,
                                        .source = source, .other = residual, .target = target});
}
