/*
 * Convolutions on the matrix unit, whose tile instructions are emulated: where nobody can time them, what they cost is
 * counted. Every layer class of ResNet-50 takes the products, loads and stores of the plan; no store waits for its
 * product; other libraries' configuration survives; and the whole network answers as it does on AVX2, to the bit.
 */
#include "amx_emulated.h"
#include "check.h"
#include "program.h"

#include <math.h>
#include <string.h>

/* ---- networks of u8 convolutions ---- */

enum { MOST_TENSORS = 160 };

typedef struct {
    ts_program *program;
    random_source random;
    int images;
    int blocks[TS_DTYPES];
    ts_tensor_desc tensors[MOST_TENSORS];
    size_t bytes; /* of the arena so far: every tensor has a place of its own */
} network;

static network begin(const char *level, int threads, int images, int block)
{
    network n = {.program = ts_program_new(threads, level), .random = {20261130}, .images = images, .blocks = {block, TS_GROUP, TS_GROUP}};
    CHECK(n.program, "level %s", level);
    ts_program_segment(n.program, images);
    return n;
}

static int add_tensor(network *n, ts_dtype dtype, int channels, int height, int width, int frame, int packed)
{
    ts_tensor_desc d = {.dtype = dtype, .channels = channels, .height = height, .width = width, .top = frame, .left = frame,
                        .bottom = frame, .right = frame, .block = packed ? channels : n->blocks[dtype], .images = n->images, .offset = n->bytes};
    const int index = ts_program_tensor(n->program, &d);
    CHECK(index >= 0 && index < MOST_TENSORS, "%s", ts_program_error(n->program));
    n->tensors[index] = d;
    n->bytes += (size_t)n->images * ts_image_bytes(&d);
    return index;
}

/* A convolution with small random weights whose outputs fill the range of a byte. `frame` is what its reader wants. */
static int add_conv(network *n, int source, int outputs, int kernel, int stride, int frame, int residual)
{
    const ts_tensor_desc *in = &n->tensors[source];
    const int filter = in->channels * kernel * kernel, pad = kernel / 2;
    const int target = add_tensor(n, TS_U8, outputs, (in->height + 2 * pad - kernel) / stride + 1, (in->width + 2 * pad - kernel) / stride + 1, frame, 0);
    int8_t *weights = malloc((size_t)outputs * (size_t)filter);
    int32_t *bias = malloc((size_t)outputs * sizeof *bias);
    float *scale = malloc((size_t)outputs * sizeof *scale);
    for (int i = 0; i < outputs * filter; i++)
        weights[i] = (int8_t)random_between(&n->random, -8, 8);
    for (int i = 0; i < outputs; i++) {
        bias[i] = random_between(&n->random, -500, 500);
        scale[i] = 0.4f / sqrtf((float)filter) * (1.0f + (float)random_between(&n->random, 0, 100) / 100);
    }
    const ts_conv_desc desc = {.source = source, .target = target, .residual = residual, .kernel_h = kernel, .kernel_w = kernel,
                               .stride_h = stride, .stride_w = stride, .dilation_h = 1, .dilation_w = 1, .pad_top = pad, .pad_left = pad,
                               .groups = 1, .weights = weights, .bias = bias, .scale = scale, .residual_scale = 0.7f, .low = 0, .high = 255};
    CHECK(!ts_program_conv(n->program, &desc), "%s", ts_program_error(n->program));
    free(weights);
    free(bias);
    free(scale);
    return target;
}

/* Runs `images` random images through a network that ends in `last`, whose real values are the answer. */
static void finish(network *n, int last)
{
    const ts_tensor_desc *d = &n->tensors[last];
    const int real = add_tensor(n, TS_F32, d->channels, d->height, d->width, 0, 0);
    const ts_eltwise_desc convert = {.source = last, .other = -1, .target = real, .source_scale = 1, .low = -INFINITY, .high = INFINITY};
    CHECK(!ts_program_eltwise(n->program, &convert) && !ts_program_output(n->program, real) &&
              !ts_program_finish(n->program, n->bytes, n->images), "%s", ts_program_error(n->program));
}

static void run(network *n, const float *input, int images, float *output)
{
    CHECK(!ts_program_run(n->program, input, TS_INPUT_F32_NCHW, images, output, NULL, NULL), "%s", ts_program_error(n->program));
}

static float *random_images(size_t count)
{
    random_source random = {7};
    float *images = malloc(count * sizeof *images);
    CHECK(images, "out of memory");
    for (size_t i = 0; i < count; i++)
        images[i] = (float)random_between(&random, 0, 255);
    return images;
}

/* ---- what a layer costs ---- */

typedef struct {
    const char *name;
    int inputs, outputs, kernel, stride, size, residual, images; /* `size`: of the output */
    int64_t products, loads, streamed, stores;
} layer;

/*
 * One run of each class, images as segments hand them over. Products are 16 cycles each; a load of the streamed operand
 * takes 20.6 cycles of the way from L2. Sums of the plan, class by class:
 * - products: tiles of pixels x panels of 64 channels x steps x 4; 56 pixels of a framed row fill 58 of 64 rows of tiles,
 * - 2x2: a load for every product's pixels and weights, halved; 1x4: 5 loads for 4 products, the pixels streamed,
 * - stores: 4 for every sum of 2x2 (twice a block) or 1x4 (once).
 */
static const layer layers[] = {
#include "matrix_plan.def"
};

static void count_layer(const layer *l)
{
    network n = begin("amx", 1, l->images, 64);
    const int size = l->size * l->stride, pixels = size * size * l->inputs;
    const int x = add_tensor(&n, TS_U8, l->inputs, size, size, l->kernel / 2, l->inputs < TS_GROUP);
    const ts_input_desc input = {.target = x, .scale = 1};
    CHECK(!ts_program_input(n.program, &input), "%s", ts_program_error(n.program));
    const int residual = l->residual ? add_conv(&n, x, l->outputs, l->kernel, l->stride, 0, -1) : -1;
    const int y = add_conv(&n, x, l->outputs, l->kernel, l->stride, 0, residual);
    finish(&n, y);
    float *images = random_images((size_t)l->images * (size_t)pixels), *output = malloc((size_t)(l->images * l->outputs * l->size * l->size) * 4);
    amx_reset_counts();
    run(&n, images, l->images, output);
    const amx_counts c = amx_counted();
    const int layers_run = l->residual ? 2 : 1;
    CHECK(c.products == layers_run * l->products && c.loads == layers_run * l->loads && c.streamed == layers_run * l->streamed &&
              c.stores == layers_run * l->stores,
          "%s: %lld products, %lld loads, %lld streamed, %lld stores; planned %lld, %lld, %lld, %lld", l->name,
          (long long)c.products / layers_run, (long long)c.loads / layers_run, (long long)c.streamed / layers_run, (long long)c.stores / layers_run,
          (long long)l->products, (long long)l->loads, (long long)l->streamed, (long long)l->stores);
    CHECK(c.hasty_stores <= 4 * layers_run, "%s: %lld stores within three products", l->name, (long long)c.hasty_stores);
    CHECK(c.configurations == layers_run, "%s: configured %lld times", l->name, (long long)c.configurations);
    ts_program_free(n.program);
    free(images);
    free(output);
}

/* ---- other libraries ---- */

static void foreign_configuration_survives(void)
{
    uint8_t foreign[64] = {1}, after[64];
    foreign[16] = 32; /* register 0: 8 rows of 32 bytes */
    foreign[48] = 8;
    network n = begin("amx", 1, 1, 64);
    const int x = add_tensor(&n, TS_U8, 64, 8, 8, 0, 0);
    const ts_input_desc input = {.target = x, .scale = 1};
    CHECK(!ts_program_input(n.program, &input), "%s", ts_program_error(n.program));
    finish(&n, add_conv(&n, x, 64, 1, 1, 0, -1));
    float *images = random_images(64 * 64), output[64 * 64];
    amx_loadconfig(foreign);
    run(&n, images, 1, output);
    amx_storeconfig(after);
    CHECK(memcmp(foreign, after, sizeof after) == 0, "another library's configuration is lost");
    amx_release();
    run(&n, images, 1, output);
    amx_storeconfig(after);
    CHECK(after[0] == 0, "tiles stay configured where nothing had configured them");
    ts_program_free(n.program);
    free(images);
}

/* ---- the whole network ---- */

static int add_bottleneck(network *n, int source, int width, int stride)
{
    const int shortcut = stride > 1 || n->tensors[source].channels != 4 * width ? add_conv(n, source, 4 * width, 1, stride, 0, -1) : source;
    const int narrow = add_conv(n, source, width, 1, 1, 1, -1);
    const int middle = add_conv(n, narrow, width, 3, stride, 0, -1);
    return add_conv(n, middle, 4 * width, 1, 1, 0, shortcut);
}

/* ResNet-50 v1.5 without its last layer, at the resolution `size`. */
static void run_resnet(const char *level, int block, int size, int images, const float *input, float *output)
{
    static const int depths[] = {3, 4, 6, 3};
    network n = begin(level, 2, images, block);
    const int x = add_tensor(&n, TS_U8, 3, size, size, 3, 1);
    const ts_input_desc first = {.target = x, .scale = 1};
    CHECK(!ts_program_input(n.program, &first), "%s", ts_program_error(n.program));
    const int stem = add_conv(&n, x, 64, 7, 2, 1, -1);
    int y = add_tensor(&n, TS_U8, 64, size / 4, size / 4, 0, 0);
    const ts_pool_desc pool = {.source = stem, .target = y, .kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .dilation_h = 1,
                               .dilation_w = 1, .pad_top = 1, .pad_left = 1, .scale = 1};
    CHECK(!ts_program_pool(n.program, &pool), "%s", ts_program_error(n.program));
    for (int stage = 0; stage < 4; stage++)
        for (int i = 0; i < depths[stage]; i++)
            y = add_bottleneck(&n, y, 64 << stage, stage > 0 && i == 0 ? 2 : 1);
    finish(&n, y);
    run(&n, input, images, output);
    ts_program_free(n.program);
}

static void whole_network(int size, int images)
{
    const size_t outputs = (size_t)images * 2048 * (size_t)(size / 32) * (size_t)(size / 32);
    float *input = random_images((size_t)images * 3 * (size_t)size * (size_t)size);
    float *expected = malloc(outputs * sizeof *expected), *actual = malloc(outputs * sizeof *actual);
    CHECK(expected && actual, "out of memory");
    run_resnet("avx2", TS_GROUP, size, images, input, expected);
    amx_reset_counts();
    run_resnet("amx", 64, size, images, input, actual);
    size_t nonzero = 0;
    for (size_t i = 0; i < outputs; i++) {
        CHECK(expected[i] == actual[i], "output %zu is %g instead of %g", i, (double)actual[i], (double)expected[i]);
        nonzero += expected[i] > 0 && expected[i] < 255;
    }
    CHECK(nonzero > outputs / 10, "only %zu of %zu outputs tell anything", nonzero, outputs);
    printf("ResNet-50 at %d, %d images: equal to AVX2 in %lld products\n", size, images, (long long)amx_counted().products);
    free(input);
    free(expected);
    free(actual);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        count_layer(&layers[i]);
    foreign_configuration_survives();
    whole_network(argc > 1 ? atoi(argv[1]) : 224, 1);
    whole_network(32, 16);
    return 0;
}
