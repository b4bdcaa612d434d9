/*
 * Convolutions on the matrix unit, whose tile instructions are emulated: where nobody can time them, what they cost is
 * counted. Every layer class of ResNet-50 takes the products, loads and stores of the plan; no store waits for its
 * product; other libraries' configuration survives; tensors in phases, of bytes and of bfloat16, give the scalar level's answers;
 * and the whole network, whose tensors before a stride of 2 are in phases, answers as it does on AVX2, to the bit.
 */
#include "amx_emulated.h"
#include "check.h"
#include "program.h"

#include <math.h>
#include <string.h>

/* ---- networks of u8 or bfloat16 convolutions ---- */

enum {
    MOST_TENSORS = 160,
    PHASES = 16, /* to be added to a frame: in phases on a matrix unit, and no more frame than windows with steps of 2 read */
};

typedef struct {
    ts_program *program;
    random_source random;
    int images;
    int blocks[TS_DTYPES];
    int zero; /* zero point of all bytes but images' */
    int residuals; /* so far; every second one has the scale of what it is added to */
    ts_tensor_desc tensors[MOST_TENSORS];
    size_t bytes; /* of the arena so far: every tensor has a place of its own */
} network;

/* `block`: of bytes. */
static network begin(const char *level, int threads, int images, int block)
{
    network n = {.program = ts_program_new(threads, level), .random = {20261130}, .images = images,
                 .blocks = {[TS_U8] = block, [TS_F32] = TS_GROUP, [TS_BF16] = block > TS_GROUP ? block / 2 : TS_GROUP}};
    CHECK(n.program, "level %s", level);
    ts_program_segment(n.program, images);
    return n;
}

static int add_tensor(network *n, ts_dtype dtype, int channels, int height, int width, int frame, int packed)
{
    ts_tensor_desc d = {.dtype = dtype, .channels = channels, .height = height, .width = width, .block = packed ? channels : n->blocks[dtype],
                        .zero = dtype == TS_U8 && !packed ? n->zero : 0, .images = n->images, .offset = n->bytes};
    d.phases = frame >= PHASES && d.block > TS_GROUP;
    d.top = d.left = d.bottom = d.right = frame % PHASES;
    if (frame > PHASES) {
        d.bottom -= 1 - height % 2;
        d.right -= 1 - width % 2;
    }
    const int index = ts_program_tensor(n->program, &d);
    CHECK(index >= 0 && index < MOST_TENSORS, "%s", ts_program_error(n->program));
    n->tensors[index] = d;
    n->bytes += (size_t)n->images * ts_image_bytes(&d);
    return index;
}

/* Weights and biases of a convolution whose outputs fill the range of a byte. */
typedef struct {
    void *weights, *bias;
    float *scale;
    float residual_scale;
} parameters;

static parameters parameters_of(network *n, ts_dtype dtype, int outputs, int filter)
{
    parameters p = {malloc((size_t)(outputs * filter) * sizeof(float)), malloc((size_t)outputs * sizeof(float)),
                    malloc((size_t)outputs * sizeof(float)), dtype == TS_U8 ? 0.7f : 0.5f};
    CHECK(p.weights && p.bias && p.scale, "out of memory");
    /* bfloat16: a few whole numbers, whose sums of bytes or halves and quarters are exact, and so the same in any order. */
    for (int i = 0; i < outputs * filter; i++)
        if (dtype == TS_U8)
            ((int8_t *)p.weights)[i] = (int8_t)random_between(&n->random, -8, 8);
        else
            ((float *)p.weights)[i] = (float)(random_between(&n->random, 1, filter) <= 6 ? random_between(&n->random, -2, 2) : 0);
    for (int i = 0; i < outputs; i++) {
        if (dtype == TS_U8)
            ((int32_t *)p.bias)[i] = random_between(&n->random, -500, 500);
        else
            ((float *)p.bias)[i] = (float)random_between(&n->random, -100, 200);
        p.scale[i] = 0.4f / sqrtf((float)filter) * (1.0f + (float)random_between(&n->random, 0, 100) / 100);
    }
    return p;
}

/* A convolution to its source's dtype. `frame` is what its reader wants. */
static int add_conv(network *n, int source, int outputs, int kernel, int stride, int frame, int residual)
{
    const ts_tensor_desc *in = &n->tensors[source];
    const int filter = in->channels * kernel * kernel, pad = kernel / 2;
    const int target = add_tensor(n, in->dtype, outputs, (in->height + 2 * pad - kernel) / stride + 1, (in->width + 2 * pad - kernel) / stride + 1, frame, 0);
    parameters p = parameters_of(n, in->dtype, outputs, filter);
    if (in->dtype == TS_U8 && residual >= 0 && n->residuals++ % 2)
        p.residual_scale = 1.0f;
    const ts_conv_desc desc = {.source = source, .target = target, .residual = residual, .kernel_h = kernel, .kernel_w = kernel,
                               .stride_h = stride, .stride_w = stride, .dilation_h = 1, .dilation_w = 1, .pad_top = pad, .pad_left = pad,
                               .groups = 1, .weights = p.weights, .bias = p.bias, .scale = p.scale, .residual_scale = p.residual_scale,
                               .low = 0, .high = 255};
    CHECK(!ts_program_conv(n->program, &desc), "%s", ts_program_error(n->program));
    free(p.weights);
    free(p.bias);
    free(p.scale);
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
 * One run of each class, images as segments hand them over; what a stride of 2 reads is in phases. Products are 16 cycles each;
 * a load of the streamed operand takes 20.6 cycles of the way from L2. Sums of the plan, class by class:
 * - products: tiles of pixels x panels of 64 channels x steps x 4; 56 pixels of a framed row fill 58 of 64 rows of tiles,
 *   28 of a phase with a frame before them 28 of 29,
 * - 2x2: a load for every product's pixels and weights, halved; 1x4: 5 loads for 4 products, the pixels streamed,
 * - stores: 4 for every sum of 2x2 (twice a block) or 1x4 (once).
 */
static const layer layers[] = {
#include "matrix_plan.def"
};

/* Of `times` convolutions of a class, the later ones with the one before as residual, and of the one that writes phases for them. */
static amx_counts count_convs(const layer *l, int times)
{
    const int size = l->size * l->stride, packed = l->inputs < TS_GROUP, frame = l->kernel / 2;
    if (!times && packed)
        return (amx_counts){0};
    network n = begin("amx", 1, l->images, 64);
    int x = add_tensor(&n, TS_U8, l->inputs, size, size, frame, packed), y = -1;
    const ts_input_desc input = {.target = x, .scale = 1};
    CHECK(!ts_program_input(n.program, &input), "%s", ts_program_error(n.program));
    if (l->stride == 2 && !packed)
        x = add_conv(&n, x, l->inputs, 1, 1, times ? PHASES + frame : 0, -1);
    for (int i = 0; i < times; i++)
        y = add_conv(&n, x, l->outputs, l->kernel, l->stride, 0, y);
    finish(&n, times ? y : x);
    float *images = random_images((size_t)(l->images * size * size * l->inputs));
    float *output = malloc((size_t)l->images * (size_t)(size * size) * (size_t)(l->inputs + l->outputs) * sizeof *output);
    CHECK(output, "out of memory");
    amx_reset_counts();
    run(&n, images, l->images, output);
    ts_program_free(n.program);
    free(images);
    free(output);
    return amx_counted();
}

static void count_layer(const layer *l)
{
    const int layers_run = l->residual ? 2 : 1;
    const amx_counts before = count_convs(l, 0), all = count_convs(l, layers_run);
    const amx_counts c = {all.products - before.products, all.loads - before.loads, all.streamed - before.streamed, all.stores - before.stores,
                          all.hasty_stores - before.hasty_stores, all.configurations - before.configurations};
    CHECK(c.products == layers_run * l->products && c.loads == layers_run * l->loads && c.streamed == layers_run * l->streamed &&
              c.stores == layers_run * l->stores,
          "%s: %lld products, %lld loads, %lld streamed, %lld stores; planned %lld, %lld, %lld, %lld", l->name,
          (long long)c.products / layers_run, (long long)c.loads / layers_run, (long long)c.streamed / layers_run, (long long)c.stores / layers_run,
          (long long)l->products, (long long)l->loads, (long long)l->streamed, (long long)l->stores);
    CHECK(c.hasty_stores <= 4 * layers_run, "%s: %lld stores within three products", l->name, (long long)c.hasty_stores);
    CHECK(c.configurations == layers_run, "%s: configured %lld times", l->name, (long long)c.configurations);
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

/* ---- phases ---- */

typedef struct {
    ts_dtype dtype;
    int height, width, channels, kernel, zero, images, capacity;
} map;

/* All that may write and read phases: windows two pixels apart, pixel by pixel from phases to phases, and residuals. */
static void run_map(const map *m, const char *level, int block, const float *input, float *output)
{
    network n = begin(level, 1 + m->images % 2, m->capacity, block);
    const int phases = PHASES + m->kernel / 2;
    n.zero = m->zero;
    const int x = add_tensor(&n, m->dtype, 64, m->height, m->width, 0, 0);
    const ts_input_desc first = {.target = x, .scale = 1};
    CHECK(!ts_program_input(n.program, &first), "%s", ts_program_error(n.program));
    const int a = add_conv(&n, x, m->channels, 1, 1, phases, -1), b = add_conv(&n, a, m->channels, 1, 1, phases, a);
    const int windows = add_conv(&n, b, 64, m->kernel, 2, 0, add_conv(&n, a, 64, m->kernel, 2, 0, -1));
    finish(&n, add_conv(&n, b, 64, 1, 2, 0, windows));
    run(&n, input, m->images, output);
    ts_program_free(n.program);
}

/* Outputs are equal to the bit. Counts them, and those that no limit cut off. */
static void compare_map(const map *m, size_t *outputs, size_t *telling)
{
    const size_t count = (size_t)m->images * 64 * (size_t)((m->height + 1) / 2 * ((m->width + 1) / 2));
    float *input = random_images((size_t)m->images * 64 * (size_t)(m->height * m->width));
    float *expected = malloc(count * sizeof *expected), *actual = malloc(count * sizeof *actual);
    CHECK(expected && actual, "out of memory");
    run_map(m, "scalar", TS_GROUP, input, expected);
    run_map(m, "amx", 64, input, actual);
    for (size_t i = 0; i < count; i++) {
        CHECK(expected[i] == actual[i], "output %zu is %g instead of %g: dtype %d, %d x %d pixels, %d channels, kernel %d, zero %d, %d of %d images", i,
              (double)actual[i], (double)expected[i], m->dtype, m->height, m->width, m->channels, m->kernel, m->zero, m->images, m->capacity);
        *telling += expected[i] > 0 && expected[i] < 255;
    }
    *outputs += count;
    free(input);
    free(expected);
    free(actual);
}

/* As many images as fill tiles across images, or few larger ones; 25 x 40 is what images of 200 x 320 pixels have. */
static void phases_do_not_matter(ts_dtype dtype, int rounds)
{
    random_source random = {20261201};
    size_t outputs = 0, telling = 0;
    for (int i = 0; i < rounds; i++) {
        const int many = i % 3 == 0, most = many ? 16 : 40;
        map m = {.dtype = dtype, .height = random_between(&random, 1, most), .width = random_between(&random, 1, most),
                 .channels = 64 * random_between(&random, 1, 2), .kernel = 1 + 2 * random_between(&random, 0, 2),
                 .zero = random_between(&random, 0, 1) * random_between(&random, 0, 255),
                 .images = many ? random_between(&random, 9, 18) : random_between(&random, 1, 3), .capacity = many ? 16 : 2};
        if (i == 1)
            m.height = 25, m.width = 40;
        compare_map(&m, &outputs, &telling);
    }
    CHECK(telling > outputs / 10, "dtype %d: only %zu of %zu outputs tell anything", dtype, telling, outputs);
    printf("phases of dtype %d: %d maps, %zu of %zu outputs between the limits\n", dtype, rounds, telling, outputs);
}

/* Only what reads every second pixel, or every one by itself, knows phases. */
static void refuses_other_readers(void)
{
    network n = begin("amx", 1, 1, 64);
    const int x = add_tensor(&n, TS_U8, 64, 8, 8, PHASES + 1, 0), y = add_tensor(&n, TS_U8, 64, 8, 8, 0, 0);
    const ts_input_desc input = {.target = x, .scale = 1};
    CHECK(ts_program_input(n.program, &input) < 0 && strstr(ts_program_error(n.program), "phases"), "%s", ts_program_error(n.program));
    const ts_eltwise_desc copy = {.source = x, .other = -1, .target = y, .source_scale = 1, .high = 255};
    CHECK(ts_program_eltwise(n.program, &copy) < 0 && strstr(ts_program_error(n.program), "phases"), "%s", ts_program_error(n.program));
    const int8_t weights[64 * 64 * 4] = {0};
    const int32_t bias[64] = {0};
    const float scale[64] = {0};
    const ts_conv_desc windows = {.source = x, .target = y, .residual = -1, .kernel_h = 2, .kernel_w = 2, .stride_h = 1, .stride_w = 1, .dilation_h = 1,
                                  .dilation_w = 1, .pad_top = 1, .pad_left = 1, .groups = 1, .weights = weights, .bias = bias, .scale = scale, .high = 255};
    CHECK(ts_program_conv(n.program, &windows) < 0 && strstr(ts_program_error(n.program), "phases"), "%s", ts_program_error(n.program));
    ts_program_free(n.program);
}

/* ---- the whole network ---- */

/* `frame` as the next block wants it. */
static int add_bottleneck(network *n, int source, int width, int stride, int frame)
{
    const int shortcut = stride > 1 || n->tensors[source].channels != 4 * width ? add_conv(n, source, 4 * width, 1, stride, 0, -1) : source;
    const int narrow = add_conv(n, source, width, 1, 1, stride > 1 ? PHASES + 1 : 1, -1);
    const int middle = add_conv(n, narrow, width, 3, stride, 0, -1);
    return add_conv(n, middle, 4 * width, 1, 1, frame, shortcut);
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
            y = add_bottleneck(&n, y, 64 << stage, stage > 0 && i == 0 ? 2 : 1, stage < 3 && i == depths[stage] - 1 ? PHASES : 0);
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
    phases_do_not_matter(TS_U8, 30);
    phases_do_not_matter(TS_BF16, 30);
    refuses_other_readers();
    whole_network(argc > 1 ? atoi(argv[1]) : 224, 1);
    whole_network(32, 16);
    return 0;
}
