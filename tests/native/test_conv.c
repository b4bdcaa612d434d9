/*
 * Random convolutions on every instruction-set level of this machine against the scalar level: integer outputs must be
 * equal to the bit, floating-point ones within the rounding of their sums. The tensors that are compared have random C0,
 * those of the scalar level the smallest.
 */
#include "check.h"
#include "kernels/table.h"
#include "program.h"

#include <math.h>
#include <string.h>

typedef struct {
    ts_dtype dtype;         /* of the input */
    ts_dtype out_dtype;
    int channels, height, width, outputs, groups;
    int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int top, left, bottom, right;
    int images, capacity, residual, packed, framed, zero, out_zero, extreme, relu;
    float residual_scale;
    int blocks[4];          /* C0 of the input, residual, output and its float copy, at the levels that are compared */
    int largest; /* magnitude of s8 weights: small ones leave room in 16-bit sums, large ones none */
    int rests;              /* further arrays of s8 weights, of which `rarely` are more than zeros */
    int rarely;
    int pruned;             /* of four blocks of weights, so many are zeros */
} shape;

static int out_size(int size, int pad, int kernel, int dilation, int stride)
{
    return (size + pad - (kernel - 1) * dilation - 1) / stride + 1;
}

/* Mostly small odd sizes, sometimes the sizes that the fast tiles are made for. */
static shape random_shape(random_source *random, ts_dtype dtype)
{
    static const int widths[] = {7, 14, 28, 56};
    shape s = {.dtype = dtype};
    s.packed = random_between(random, 0, 5) == 0;
    s.groups = !s.packed && random_between(random, 0, 7) == 0 ? 2 : 1;
    s.channels = s.packed ? random_between(random, 1, 4) : s.groups > 1 ? 32 : random_between(random, 1, 70);
    s.outputs = s.groups > 1 ? 64 : random_between(random, 1, 70);
    s.kernel_h = random_between(random, 1, s.packed ? 7 : 3);
    s.kernel_w = random_between(random, 1, s.packed ? 7 : 3);
    s.stride_h = random_between(random, 1, 3);
    s.stride_w = random_between(random, 1, 3);
    s.dilation_h = random_between(random, 1, 2);
    s.dilation_w = s.packed ? 1 : random_between(random, 1, 2);
    s.top = random_between(random, 0, s.kernel_h);
    s.left = random_between(random, 0, s.kernel_w);
    s.bottom = random_between(random, 0, s.kernel_h);
    s.right = random_between(random, 0, s.kernel_w);
    const int reach_h = (s.kernel_h - 1) * s.dilation_h + 1, reach_w = (s.kernel_w - 1) * s.dilation_w + 1;
    s.height = reach_h + random_between(random, 0, 9);
    s.width = random_between(random, 0, 1) ? widths[next_random(random) % 4] * s.stride_w : reach_w + random_between(random, 0, 40);
    if (s.width < reach_w)
        s.width = reach_w;
    s.images = random_between(random, 1, 3);
    s.capacity = 2;
    s.framed = random_between(random, 0, 1);
    s.residual = random_between(random, 0, 1);
    s.residual_scale = random_between(random, 0, 1) ? 1.0f : 0.37f;
    s.zero = random_between(random, 0, 1) ? random_between(random, 0, 255) : 0;
    s.out_zero = random_between(random, 0, 1) ? random_between(random, 0, 255) : 0;
    s.extreme = random_between(random, 0, 3) == 0;
    s.relu = random_between(random, 0, 1);
    s.largest = 1 << random_between(random, 2, 7);
    s.rests = dtype == TS_U8 && random_between(random, 0, 1) ? random_between(random, 1, 2) : 0;
    s.rarely = 1 << random_between(random, 0, 10);
    s.pruned = random_between(random, 0, 1) ? random_between(random, 1, 4) : 0;
    for (int i = 0; i < 4; i++)
        s.blocks[i] = TS_GROUP * (random_between(random, 0, 1) ? 1 << random_between(random, 0, 2) : random_between(random, 1, 5));
    s.out_dtype = dtype == TS_U8 && random_between(random, 0, 3) ? TS_U8 : dtype == TS_BF16 ? TS_BF16 : TS_F32;
    return s;
}

/* What reads images: three channels packed, rows longer than the input step quantises at a time, checked by the definition. */
static shape image_shape(random_source *random)
{
    shape s;
    do
        s = random_shape(random, TS_U8);
    while (!s.packed);
    s.channels = 3;
    s.width += random_between(random, 0, 300);
    s.out_dtype = TS_F32;
    s.residual = s.relu = 0;
    return s;
}

/*
 * What Winograd's algorithm takes of bytes: 3x3 of stride 1 with many channels. Some have tiles that hang over, some weights
 * too large.
 */
static shape winograd_shape(random_source *random, ts_dtype dtype)
{
    shape s = random_shape(random, dtype);
    s.packed = 0;
    s.groups = s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = 1;
    s.kernel_h = s.kernel_w = 3;
    s.channels = random_between(random, 32, 100);
    s.outputs = random_between(random, 32, 70);
    s.top = random_between(random, 0, 2);
    s.left = random_between(random, 0, 2);
    s.height = 2 + random_between(random, 3, 14);
    s.width = 2 + random_between(random, 3, 30);
    return s;
}

/* 1x1 of stride 1, whose rows may be cut into tiles as one where no frame is between them. */
static shape pointwise_shape(random_source *random, ts_dtype dtype)
{
    shape s = random_shape(random, dtype);
    s.packed = 0;
    s.groups = s.kernel_h = s.kernel_w = s.stride_h = s.stride_w = 1;
    s.top = s.left = s.bottom = s.right = 0;
    s.height = random_between(random, 1, 14);
    s.width = random_between(random, 1, 30);
    return s;
}

/* One filter for each channel, in any block; some groups are not full. */
static shape depthwise_shape(random_source *random, ts_dtype dtype)
{
    shape s = random_shape(random, dtype);
    s.packed = 0;
    s.channels = s.outputs = s.groups = random_between(random, 2, 300);
    if (random_between(random, 0, 1)) {
        s.kernel_h = s.kernel_w = random_between(random, 0, 1) ? 3 : 5;
        s.stride_h = s.stride_w = random_between(random, 1, 2);
        s.dilation_h = s.dilation_w = 1;
        s.top = s.left = s.bottom = s.right = s.kernel_h / 2;
        s.height = s.width = random_between(random, 0, 1) ? 7 * s.stride_w : s.kernel_h + random_between(random, 0, 30);
    }
    return s;
}

/* What matrix units take: whole blocks of 64 bytes on both sides. Sometimes as many images as fill a tile. */
static shape matrix_shape(random_source *random, ts_dtype dtype)
{
    const int block = dtype == TS_U8 ? 64 : 32;
    shape s = random_shape(random, dtype);
    s.packed = random_between(random, 0, 3) == 0;
    s.groups = 1;
    s.channels = s.packed ? random_between(random, 1, 4) : block * random_between(random, 1, 5);
    if (s.packed)
        s.dilation_w = 1;
    s.outputs = 64 * random_between(random, 1, 3);
    s.out_dtype = dtype;
    if (random_between(random, 0, 2) == 0) {
        s.height = s.width = 7;
        if (s.kernel_h > 3) /* the kernels of packed shapes would not fit */
            s.dilation_h = 1;
        s.capacity = 16;
        s.images = random_between(random, 9, 18);
        s.zero *= random_between(random, 0, 1);
    } else {
        s.width = s.width < 40 ? s.width : 40;
    }
    if (s.channels * s.kernel_h * s.kernel_w > 1600) /* more than 32-bit sums of extreme values can hold is refused */
        s.kernel_h = s.kernel_w = 1;
    s.blocks[0] = s.blocks[1] = s.blocks[2] = block;
    return s;
}

typedef struct {
    float *input, *output;
    void *weights, *bias;
    float *scale;
    size_t input_count, output_count, weight_count;
} buffers;

static float unit(random_source *random)
{
    return (float)random_between(random, -1000, 1000) / 1000.0f;
}

/* Zeros for blocks of 32 output channels by 8 input channels of one tap: what every kernel can leave out. */
static void prune(const shape *s, void *weights, random_source *random)
{
    const int inputs = s->channels / s->groups, taps = s->kernel_h * s->kernel_w;
    const int across = (inputs + 7) / 8, blocks = (s->outputs + 31) / 32 * across * taps;
    const size_t element = s->dtype == TS_U8 ? 1 : sizeof(float);
    for (int block = 0; block < blocks; block++) {
        const int tap = block % taps, input = block / taps % across * 8, output = block / taps / across * 32;
        if (random_between(random, 0, 3) >= s->pruned)
            continue;
        for (int oc = output; oc < s->outputs && oc < output + 32; oc++)
            for (int ic = input; ic < inputs && ic < input + 8; ic++)
                memset((uint8_t *)weights + (size_t)((oc * inputs + ic) * taps + tap) * element, 0, element);
    }
}

static buffers make_buffers(const shape *s, int out_h, int out_w, random_source *random)
{
    buffers b = {0};
    b.input_count = (size_t)s->images * (size_t)(s->channels * s->height * s->width);
    b.output_count = (size_t)s->images * (size_t)(s->outputs * out_h * out_w);
    b.weight_count = (size_t)(s->outputs * (s->channels / s->groups) * s->kernel_h * s->kernel_w);
    b.input = malloc(b.input_count * sizeof(float));
    b.output = malloc(b.output_count * sizeof(float));
    const size_t all_weights = b.weight_count * (size_t)(1 + s->rests);
    b.weights = malloc(all_weights * sizeof(float));
    b.bias = malloc((size_t)(s->outputs + 1) * 4);
    b.scale = malloc((size_t)(s->outputs + 1) * sizeof(float));
    /* u8 inputs have scale 1: these are the quantised values less the zero. Floats get smaller from image to image. */
    for (size_t i = 0; i < b.input_count; i++)
        b.input[i] = s->dtype != TS_U8 ? ldexpf(unit(random), -2 * (int)(i * (size_t)s->images / b.input_count))
                     : (float)((s->extreme ? 255 * random_between(random, 0, 1) : random_between(random, 0, 255)) - s->zero);
    for (size_t i = 0; i < all_weights; i++)
        if (s->rests && i % b.weight_count < 9) /* one filter whose transform by Winograd leaves 16 bits */
            ((int8_t *)b.weights)[i] = 127;
        else if (i >= b.weight_count && random_between(random, 0, s->rarely))
            ((int8_t *)b.weights)[i] = 0;
        else if (s->dtype == TS_U8)
            ((int8_t *)b.weights)[i] = (int8_t)(s->extreme ? (random_between(random, 0, 1) ? 127 : -128)
                                                          : random_between(random, -s->largest, s->largest - 1));
        else
            ((float *)b.weights)[i] = unit(random);
    prune(s, b.weights, random);
    for (int i = 0; i <= s->outputs; i++) {
        if (s->dtype == TS_U8)
            ((int32_t *)b.bias)[i] = random_between(random, -100000, 100000);
        else
            ((float *)b.bias)[i] = unit(random);
        b.scale[i] = s->residual_scale == 1.0f ? ldexpf(1.0f, -random_between(random, 8, 16)) /* sums lie between two results */
                                               : (float)random_between(random, 1, 1000) * (s->extreme ? 1e-3f : 1e-6f);
    }
    return b;
}

static void free_buffers(buffers *b)
{
    free(b->input);
    free(b->output);
    free(b->weights);
    free(b->bias);
    free(b->scale);
}

/* input -> x -> conv (+ residual, itself a convolution of x) -> y -> floats */
static void run_level(const shape *s, const buffers *b, int out_h, int out_w, const char *level, const int blocks[4], int threads,
                      float *output)
{
    ts_program *p = ts_program_new(threads, level);
    CHECK(p, "level %s", level);
    const size_t images = (size_t)s->capacity;
    size_t offset = 0;
    ts_tensor_desc x = {.dtype = s->dtype, .channels = s->channels, .height = s->height, .width = s->width,
                        .top = s->top, .left = s->left, .bottom = s->bottom, .right = s->right,
                        .zero = s->dtype == TS_U8 ? s->zero : 0, .block = s->packed ? s->channels : blocks[0], .images = s->capacity};
    offset += images * ts_image_bytes(&x);
    ts_tensor_desc y = {.dtype = s->out_dtype, .channels = s->outputs, .height = out_h, .width = out_w,
                        .zero = s->out_dtype == TS_U8 ? s->out_zero : 0, .block = blocks[1], .images = s->capacity, .offset = offset,
                        .top = 1, .left = s->framed ? 2 : 0, .bottom = 1, .right = 0};
    offset += images * ts_image_bytes(&y);
    ts_tensor_desc r = y;
    r.offset = offset;
    r.left = 0;
    r.block = blocks[2];
    offset += images * ts_image_bytes(&r);
    ts_tensor_desc f = y;
    f.offset = offset;
    f.block = blocks[3];
    f.dtype = TS_F32;
    f.zero = 0;
    offset += images * ts_image_bytes(&f);
    const int xi = ts_program_tensor(p, &x), yi = ts_program_tensor(p, &y), ri = ts_program_tensor(p, &r),
              fi = ts_program_tensor(p, &f);
    CHECK(xi >= 0 && yi >= 0 && ri >= 0 && fi >= 0, "%s", ts_program_error(p));
    ts_program_segment(p, s->capacity);
    ts_input_desc input = {.target = xi, .scale = 1.0f};
    CHECK(!ts_program_input(p, &input), "%s", ts_program_error(p));
    const int quantised = s->out_dtype == TS_U8;
    ts_conv_desc conv = {.source = xi, .target = ri, .residual = -1, .kernel_h = s->kernel_h, .kernel_w = s->kernel_w,
                         .stride_h = s->stride_h, .stride_w = s->stride_w, .dilation_h = s->dilation_h,
                         .dilation_w = s->dilation_w, .pad_top = s->top, .pad_left = s->left, .groups = s->groups,
                         .weights = b->weights, .rests = s->rests, .bias = (int32_t *)b->bias + 1, .scale = b->scale, .residual_scale = 1.0f,
                         .low = quantised ? 0 : -INFINITY, .high = quantised ? 255 : INFINITY};
    if (s->residual)
        CHECK(!ts_program_conv(p, &conv), "%s", ts_program_error(p));
    conv.target = yi;
    conv.bias = b->bias; /* another, so that sums between two results meet odd residuals */
    conv.residual = s->residual ? ri : -1;
    conv.residual_scale = s->residual_scale;
    if (s->relu)
        conv.low = quantised ? (float)s->out_zero : 0.0f;
    CHECK(!ts_program_conv(p, &conv), "%s", ts_program_error(p));
    ts_eltwise_desc convert = {.source = yi, .other = -1, .target = fi, .source_scale = 1.0f, .low = -INFINITY, .high = INFINITY};
    CHECK(!ts_program_eltwise(p, &convert), "%s", ts_program_error(p));
    CHECK(!ts_program_output(p, fi), "%s", ts_program_error(p));
    CHECK(!ts_program_finish(p, offset, s->capacity), "%s", ts_program_error(p));
    CHECK(!ts_program_run(p, b->input, TS_INPUT_F32_NCHW, s->images, output, NULL, NULL), "%s", ts_program_error(p));
    ts_program_free(p);
}

static void compare(const shape *s, const float *expected, const float *actual, size_t count, const char *level)
{
    const double depth = s->channels / s->groups * s->kernel_h * s->kernel_w;
    /* A residual brings roundings of its own. */
    const double relative = (s->dtype == TS_BF16 ? 1.0 / 200 : 1e-5) * (s->residual ? 1 + (double)s->residual_scale : 1);
    for (size_t i = 0; i < count; i++) {
        const double difference = fabs((double)expected[i] - (double)actual[i]);
        const double spread = s->dtype == TS_BF16 ? sqrt(depth) : depth; /* roundings of weights fall either way */
        const double allowed = s->dtype == TS_U8 ? 0.0 : relative * (spread + fabs((double)expected[i]) + 1.0);
        CHECK(difference <= allowed,
              "%s, element %zu: %g instead of %g (in dtype %d %dx%dx%d groups %d, out dtype %d %d, kernel %dx%d stride "
              "%d,%d dilation %d,%d pads %d %d %d %d, residual %d at %g, packed %d, extreme %d, blocks %d %d %d %d)",
              level, i, (double)actual[i], (double)expected[i], s->dtype, s->channels, s->height, s->width, s->groups,
              s->out_dtype, s->outputs, s->kernel_h, s->kernel_w, s->stride_h, s->stride_w, s->dilation_h,
              s->dilation_w, s->top, s->left, s->bottom, s->right, s->residual, (double)s->residual_scale, s->packed, s->extreme, s->blocks[0], s->blocks[1],
              s->blocks[2], s->blocks[3]);
    }
}

/* The scalar level itself against the definition of a convolution, for integers in and real numbers out. */
static void check_definition(const shape *s, const buffers *b, int out_h, int out_w, const float *output)
{
    if (s->dtype != TS_U8 || s->out_dtype != TS_F32 || s->residual || s->relu)
        return;
    const int inputs = s->channels / s->groups, per_group = s->outputs / s->groups;
    size_t at = 0;
    for (int n = 0; n < s->images; n++)
        for (int oc = 0; oc < s->outputs; oc++)
            for (int y = 0; y < out_h; y++)
                for (int x = 0; x < out_w; x++, at++) {
                    double sum = ((int32_t *)b->bias)[oc];
                    for (int ic = 0; ic < inputs; ic++)
                        for (int i = 0; i < s->kernel_h; i++)
                            for (int j = 0; j < s->kernel_w; j++) {
                                const int iy = y * s->stride_h - s->top + i * s->dilation_h;
                                const int ix = x * s->stride_w - s->left + j * s->dilation_w;
                                if (iy < 0 || ix < 0 || iy >= s->height || ix >= s->width)
                                    continue;
                                const size_t channel = (size_t)(n * s->channels + oc / per_group * inputs + ic);
                                const float value = b->input[(channel * (size_t)s->height + (size_t)iy) * (size_t)s->width + (size_t)ix];
                                const int8_t *weight = (int8_t *)b->weights + ((oc * inputs + ic) * s->kernel_h + i) * s->kernel_w + j;
                                for (int part = 0; part <= s->rests; part++)
                                    sum += (double)value * weight[(size_t)part * b->weight_count];
                            }
                    const double expected = sum * (double)b->scale[oc];
                    CHECK(fabs(expected - (double)output[at]) <= 1e-6 * (fabs(expected) + 1), "element %zu: %g instead of %g", at,
                          (double)output[at], expected);
                }
}

/* Whether a level runs bfloat16 in 16-bit whole numbers (conv/bf16_int16.c). */
static int in_whole_numbers(uint32_t features)
{
    const ts_kernel *whole = ts_find_kernel(TS_INT16, TS_BF16, features);
    return whole && !ts_find_kernel(TS_MATRIX, TS_BF16, features) && !(ts_find_kernel(TS_CONV, TS_BF16, features)->features & ~whole->features);
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? atoi(argv[1]) : 300;
    random_source random = {argc > 2 ? strtoull(argv[2], NULL, 10) : 20261122};
    const uint32_t features = ts_cpu_detect();
    const int unblocked[4] = {TS_GROUP, TS_GROUP, TS_GROUP, TS_GROUP};
    int compared = 0;
    for (int round = 0; round < rounds; round++) {
        const shape s = round % 7 == 6 ? winograd_shape(&random, round % 2 ? TS_U8 : (ts_dtype)(round % 3))
                        : round % 7 == 5 ? matrix_shape(&random, round % 2 ? TS_U8 : TS_BF16)
                        : round % 7 == 4 ? depthwise_shape(&random, (ts_dtype)(round % 3))
                        : round % 14 == 2 ? image_shape(&random)
                        : round % 7 == 3 ? pointwise_shape(&random, (ts_dtype)(round % 3)) : random_shape(&random, (ts_dtype)(round % 3));
        const int out_h = out_size(s.height, s.top + s.bottom, s.kernel_h, s.dilation_h, s.stride_h);
        const int out_w = out_size(s.width, s.left + s.right, s.kernel_w, s.dilation_w, s.stride_w);
        buffers b = make_buffers(&s, out_h, out_w, &random);
        float *actual = malloc(b.output_count * sizeof(float)), *expected = malloc(b.output_count * sizeof(float));
        run_level(&s, &b, out_h, out_w, "scalar", unblocked, 1, b.output);
        check_definition(&s, &b, out_h, out_w, b.output);
        float *whole = NULL; /* of the first level in whole numbers: the sums of all have one order */
        for (const ts_isa_level *level = ts_isa_levels; level->name; level++) {
            if ((level->features & ~features) != 0)
                continue;
            run_level(&s, &b, out_h, out_w, level->name, s.blocks, 1 + round % 3, actual);
            run_level(&s, &b, out_h, out_w, level->name, unblocked, 1, expected);
            /* A matrix unit adds bfloat16 products in another order. */
            const int same_order = s.dtype != TS_BF16 || !ts_find_kernel(TS_MATRIX, TS_BF16, level->features);
            CHECK(!same_order || memcmp(expected, actual, b.output_count * sizeof(float)) == 0, "%s answers differently in blocks of %d %d %d %d (dtype %d)",
                  level->name, s.blocks[0], s.blocks[1], s.blocks[2], s.blocks[3], s.dtype);
            compare(&s, b.output, actual, b.output_count, level->name);
            if (s.dtype == TS_BF16 && in_whole_numbers(level->features)) {
                if (!whole)
                    whole = memcpy(malloc(b.output_count * sizeof(float)), actual, b.output_count * sizeof(float));
                CHECK(memcmp(whole, actual, b.output_count * sizeof(float)) == 0, "%s rounds whole numbers differently", level->name);
            }
            compared++;
        }
        free(whole);
        free(actual);
        free(expected);
        free_buffers(&b);
    }
    printf("%d convolutions compared on levels up to %s\n", compared, ts_cpu_level_name(features));
    return 0;
}
