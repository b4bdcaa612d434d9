/* Appending a convolution: what is refused, and which algorithm takes it. */
#include "conv/conv.h"

/* The first that takes a problem runs it; the last one takes all that are left. */
static const ts_conv_algorithm *const algorithms[] = {&ts_conv_depthwise, &ts_conv_matrix, &ts_conv_winograd, &ts_conv_bf16_int16,
                                                     &ts_conv_chains, &ts_conv_direct};

static const ts_conv_algorithm *choose(const ts_conv_problem *problem)
{
    const ts_conv_algorithm *const *algorithm = algorithms;
    while (!(*algorithm)->takes(problem))
        algorithm++;
    return *algorithm;
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
    if (ts_is_packed(target) || in->channels % d->groups || out->channels % d->groups)
        return ts_fail(program, "a convolution's channels do not divide into %d groups", d->groups);
    if (d->groups > 1 && !ts_is_depthwise(d, source, target) && (in->channels / d->groups % TS_GROUP || out->channels / d->groups % TS_GROUP))
        return ts_fail(program, "channels per group must be multiples of %d", TS_GROUP);
    if (ts_is_packed(source) && (d->dilation_w != 1 || d->groups != 1))
        return ts_fail(program, "a packed input allows neither dilation along rows nor groups");
    if (residual && !ts_same_shape(residual, target))
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
    if (!program->segment_count) /* algorithms size their scratch by it */
        return ts_fail(program, "a step before the first segment");
    if (check_geometry(program, desc, source, target, residual))
        return -1;
    const int inputs = source->desc.channels / desc->groups;
    const ts_conv_problem problem = {
        .desc = desc, .source = source, .target = target, .residual = residual, .features = program->features,
        .kernel = ts_choose_conv_kernel(source->desc.dtype, program->features, target->desc.width),
        .outputs = target->desc.channels / desc->groups, .inputs = inputs, .filter = inputs * desc->kernel_h * desc->kernel_w};
    const ts_conv_algorithm *algorithm = choose(&problem);
    ts_step step = {.run = algorithm->run, .free = algorithm->free, .kind = "conv", .source = source, .other = residual, .target = target};
    if (algorithm->build(program, &problem, &step)) {
        algorithm->free(step.data);
        return -1;
    }
    return ts_append(program, step);
}

/* The block that the kernel of a convolution wants; one that works on larger blocks than TS_GROUP needs whole ones on both sides. */
static int wanted_block(const ts_conv_outline *conv, uint32_t features)
{
    const ts_kernel *matrix = ts_find_kernel(TS_MATRIX, conv->dtype, features);
    const int blocks[] = {matrix ? matrix->matrix.block : TS_GROUP, ts_choose_conv_kernel(conv->dtype, features, conv->width)->conv.block};
    for (int i = 0; i < 2; i++)
        if (blocks[i] > TS_GROUP && conv->inputs % blocks[i] == 0 && conv->outputs % blocks[i] == 0)
            return blocks[i];
    return TS_GROUP;
}

/* The block that most multiplications of a dtype want. */
void ts_program_blocks(const ts_program *program, const ts_conv_outline *convs, int count, int blocks[TS_DTYPES])
{
    int64_t macs[TS_DTYPES][TS_MAX_BLOCK / TS_GROUP + 1] = {{0}};
    for (int i = 0; i < count; i++) {
        const ts_conv_outline *conv = &convs[i];
        macs[conv->dtype][wanted_block(conv, program->features) / TS_GROUP] += conv->macs;
    }
    for (int dtype = 0; dtype < TS_DTYPES; dtype++) {
        int best = 1;
        for (int block = 2; block <= TS_MAX_BLOCK / TS_GROUP; block++)
            best = macs[dtype][block] > macs[dtype][best] ? block : best;
        blocks[dtype] = best * TS_GROUP;
    }
}
