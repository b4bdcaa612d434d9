/* Programs refuse what they cannot run, in words, and leak nothing when they do; steps without a test of their own. */
#include "check.h"
#include "run/cpu.h"
#include "run/weights.h"
#include "program.h"

#include <math.h>
#include <string.h>

static ts_tensor_desc plain(int channels, int side, size_t offset)
{
    return (ts_tensor_desc){.dtype = TS_F32, .channels = channels, .height = side, .width = side, .block = TS_GROUP, .images = 1, .offset = offset};
}

static void expect_refusal(ts_program *program, int result, const char *part)
{
    CHECK(result < 0, "accepted, but should say \"%s\"", part);
    CHECK(strstr(ts_program_error(program), part), "says \"%s\" instead of \"%s\"", ts_program_error(program), part);
}

static void refuses_impossible_tensors(void)
{
    ts_program *program = ts_program_new(1, "scalar");
    ts_tensor_desc desc = plain(0, 4, 0);
    expect_refusal(program, ts_program_tensor(program, &desc), "impossible shape");
    desc = plain(16, 1 << 20, 0);
    expect_refusal(program, ts_program_tensor(program, &desc), "impossible shape");
    desc = plain(16, 4, 0);
    desc.block = 8;
    expect_refusal(program, ts_program_tensor(program, &desc), "impossible shape");
    desc = plain(16, 4, 32);
    expect_refusal(program, ts_program_tensor(program, &desc), "aligned");
    ts_program_free(program);
}

static void refuses_reads_beyond_the_frame(void)
{
    ts_program *program = ts_program_new(1, "scalar");
    const ts_tensor_desc x = plain(1, 4, 0), y = plain(1, 4, 4096);
    ts_program_tensor(program, &x);
    ts_program_tensor(program, &y);
    ts_program_segment(program, 1);
    const float weights[9] = {0}, bias[1] = {0};
    ts_conv_desc conv = {.source = 0, .target = 1, .residual = -1, .kernel_h = 3, .kernel_w = 3, .stride_h = 1,
                         .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .pad_top = 1, .pad_left = 1, .groups = 1,
                         .weights = weights, .bias = bias, .low = -INFINITY, .high = INFINITY};
    expect_refusal(program, ts_program_conv(program, &conv), "beyond the frame");
    conv.source = 7;
    expect_refusal(program, ts_program_conv(program, &conv), "no tensor 7");
    ts_program_free(program);
}

static void refuses_overflowing_sums(void)
{
    ts_program *program = ts_program_new(1, "scalar");
    ts_tensor_desc x = plain(1, 1, 0), y = plain(1, 1, 4096);
    x.dtype = y.dtype = TS_U8;
    ts_program_tensor(program, &x);
    ts_program_tensor(program, &y);
    ts_program_segment(program, 1);
    const int8_t weights[1] = {127};
    const int32_t bias[1] = {INT32_MAX};
    const float scale[1] = {1e-3f}, huge[1] = {1e9f};
    const int32_t small[1] = {0};
    ts_conv_desc conv = {.source = 0, .target = 1, .residual = -1, .kernel_h = 1, .kernel_w = 1, .stride_h = 1,
                         .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .groups = 1, .weights = weights,
                         .bias = bias, .scale = scale, .high = 255};
    expect_refusal(program, ts_program_conv(program, &conv), "overflow");
    conv.bias = small;
    conv.scale = huge;
    expect_refusal(program, ts_program_conv(program, &conv), "cannot be represented");
    ts_program_free(program);
}

static void refuses_tensors_outside_the_arena(void)
{
    ts_program *program = ts_program_new(1, "scalar");
    const ts_tensor_desc x = plain(16, 4, 0);
    ts_program_tensor(program, &x);
    ts_program_segment(program, 1);
    ts_input_desc input = {.target = 0, .scale = 1.0f};
    CHECK(!ts_program_input(program, &input), "%s", ts_program_error(program));
    CHECK(!ts_program_output(program, 0), "%s", ts_program_error(program));
    expect_refusal(program, ts_program_finish(program, 100, 1), "does not fit the arena");
    expect_refusal(program, ts_program_finish(program, 1 << 20, 2), "has room for 1 images");
    CHECK(!ts_program_finish(program, 1 << 20, 1), "%s", ts_program_error(program));
    float data[256] = {1.5f}, copy[256];
    CHECK(!ts_program_run(program, data, TS_INPUT_F32_NCHW, 1, copy, NULL, NULL), "%s", ts_program_error(program));
    CHECK(memcmp(data, copy, sizeof data) == 0, "a program without layers changed its input");
    ts_slice slices[2] = {0}; /* input and output */
    CHECK(ts_program_slices(program, 1) == 2, "%zu slices", ts_program_slices(program, 1));
    CHECK(!ts_program_run(program, data, TS_INPUT_F32_NCHW, 1, copy, NULL, slices), "%s", ts_program_error(program));
    for (int i = 0; i < 2; i++)
        CHECK(slices[i].step == i && slices[i].start_ns > 0 && slices[i].end_ns >= slices[i].start_ns, "slice %d", i);
    expect_refusal(program, ts_program_run(program, data, TS_INPUT_F32_NCHW, 1, copy, data, NULL), "no tap");
    expect_refusal(program, ts_program_run(program, data, TS_INPUT_U8_NHWC, 1, copy, NULL, NULL), "uint8");
    ts_program_free(program);
}

/* float -> `dtype` -> u8 -> float, with what rounds, saturates and is no number. */
static void quantise_at(const char *level, ts_dtype dtype, const float *input, float *output)
{
    ts_program *program = ts_program_new(2, level);
    ts_tensor_desc x = plain(16, 4, 0), real = plain(16, 4, 4096), u8 = plain(16, 4, 8192), y = plain(16, 4, 12288);
    real.dtype = dtype;
    u8.dtype = TS_U8;
    u8.zero = 3;
    ts_program_tensor(program, &x);
    ts_program_tensor(program, &real);
    ts_program_tensor(program, &u8);
    ts_program_tensor(program, &y);
    ts_program_segment(program, 1);
    const ts_input_desc in = {.target = 0, .scale = 1.0f};
    CHECK(!ts_program_input(program, &in), "%s", ts_program_error(program));
    ts_eltwise_desc convert = {.source = 0, .other = -1, .target = 1, .source_scale = 1.0f, .low = -INFINITY, .high = INFINITY};
    CHECK(!ts_program_eltwise(program, &convert), "%s", ts_program_error(program));
    ts_eltwise_desc quantise = {.source = 1, .other = -1, .target = 2, .source_scale = 0.5f, .low = 2, .high = 250};
    CHECK(!ts_program_eltwise(program, &quantise), "%s", ts_program_error(program));
    convert.source = 2;
    convert.target = 3;
    CHECK(!ts_program_eltwise(program, &convert), "%s", ts_program_error(program));
    CHECK(!ts_program_output(program, 3), "%s", ts_program_error(program));
    CHECK(!ts_program_finish(program, 1 << 15, 1), "%s", ts_program_error(program));
    CHECK(!ts_program_run(program, input, TS_INPUT_F32_NCHW, 1, output, NULL, NULL), "%s", ts_program_error(program));
    ts_program_free(program);
}

static void quantises_alike_on_all_levels(ts_dtype dtype)
{
    float input[256], expected[256], actual[256];
    for (int i = 0; i < 256; i++)
        input[i] = (float)(3 * i - 100);
    input[0] = NAN;
    input[17] = INFINITY;
    input[34] = -INFINITY;
    input[51] = 1e30f;
    quantise_at("scalar", dtype, input, expected);
    /* 2 - 3, 250 - 3, and half-way cases to even: (3 * 37 - 100) / 2 = 5.5, (3 * 35 - 100) / 2 = 2.5 */
    CHECK(expected[0] == -1 && expected[17] == 247 && expected[34] == -1 && expected[37] == 6 && expected[35] == 2,
          "%g %g %g %g %g", (double)expected[0], (double)expected[17], (double)expected[34], (double)expected[37], (double)expected[35]);
    for (const ts_isa_level *level = ts_isa_levels; level->name; level++)
        if ((level->features & ~ts_cpu_detect()) == 0) {
            quantise_at(level->name, dtype, input, actual);
            CHECK(memcmp(expected, actual, sizeof expected) == 0, "%s quantises dtype %d differently", level->name, (int)dtype);
        }
}

/* What is averaged, for those who ask: every image's own, without the spare lanes of its last group. */
static void gives_out_what_is_averaged(int threads)
{
    enum { IMAGES = 7, CHANNELS = 20, SIDE = 3, PIXELS = SIDE * SIDE, ELEMENTS = CHANNELS * PIXELS };
    ts_program *program = ts_program_new(threads, NULL);
    ts_tensor_desc real = plain(CHANNELS, SIDE, 0), u8 = plain(CHANNELS, SIDE, 1 << 14), mean = plain(CHANNELS, 1, 1 << 15);
    u8.dtype = TS_U8;
    u8.zero = 5;
    real.images = u8.images = mean.images = 2;
    ts_program_tensor(program, &real);
    ts_program_tensor(program, &u8);
    ts_program_tensor(program, &mean);
    ts_program_segment(program, 2);
    const ts_input_desc in = {.target = 0, .scale = 1.0f};
    CHECK(!ts_program_input(program, &in), "%s", ts_program_error(program));
    const ts_eltwise_desc quantise = {.source = 0, .other = -1, .target = 1, .source_scale = 4.0f, .low = 0, .high = 255};
    CHECK(!ts_program_eltwise(program, &quantise), "%s", ts_program_error(program));
    CHECK(!ts_program_global_average(program, 1, 2, 0.25f, 0.25f), "%s", ts_program_error(program));
    expect_refusal(program, ts_program_global_average(program, 1, 2, 0.25f, 0.25f), "one tap");
    CHECK(!ts_program_output(program, 2), "%s", ts_program_error(program));
    CHECK(!ts_program_finish(program, 1 << 16, 2), "%s", ts_program_error(program));
    float input[IMAGES * ELEMENTS], tap[IMAGES * ELEMENTS], means[IMAGES * CHANNELS], again[IMAGES * CHANNELS];
    for (int i = 0; i < IMAGES * ELEMENTS; i++)
        input[i] = (float)(i % 97) * 0.25f;
    CHECK(!ts_program_run(program, input, TS_INPUT_F32_NCHW, IMAGES, means, tap, NULL), "%s", ts_program_error(program));
    CHECK(memcmp(tap, input, sizeof tap) == 0, "the tap is not what went in, with %d threads", threads);
    CHECK(!ts_program_run(program, input, TS_INPUT_F32_NCHW, IMAGES, again, NULL, NULL), "%s", ts_program_error(program));
    CHECK(memcmp(means, again, sizeof means) == 0, "a tap changes the answer");
    ts_program_free(program);
}

static void *pack(ts_weights *weights, size_t bytes, unsigned char first)
{
    unsigned char *taken = ts_weights_take(weights, bytes);
    for (size_t i = 0; i < bytes; i++) {
        CHECK(!taken[i], "byte %zu of %zu is not zero", i, bytes);
        taken[i] = (unsigned char)(first + i);
    }
    return ts_weights_keep(weights, taken, bytes);
}

static void keeps_equal_weights_once(void)
{
    enum { BLOCKS = 600, LARGE = 40 << 20 }; /* more than one entry of the list, and one piece of memory, has room for */
    unsigned char *all[BLOCKS];
    ts_weights *first = ts_weights_new();
    for (int i = 0; i < BLOCKS; i++)
        all[i] = pack(first, 100 + (size_t)(i % 7), (unsigned char)(i / 7));
    const unsigned char *large = pack(first, LARGE, 1);
    CHECK(pack(first, 100, 200) != pack(first, 100, 200), "one owner shares with itself");
    const size_t alone = ts_weights_bytes(first);
    ts_weights *second = ts_weights_share(first);
    for (int i = BLOCKS - 1; i >= 0; i--)
        CHECK(pack(second, 100 + (size_t)(i % 7), (unsigned char)(i / 7)) == all[i], "block %d is there twice", i);
    CHECK(pack(second, LARGE, 1) == large, "a large block is there twice");
    CHECK(ts_weights_bytes(second) == alone, "%zu bytes instead of %zu", ts_weights_bytes(second), alone);
    const unsigned char *other = pack(second, 100, 255);
    CHECK(ts_weights_bytes(second) == alone + 100, "%zu bytes instead of %zu", ts_weights_bytes(second), alone + 100);
    CHECK(pack(ts_weights_share(second), 100, 255) == other, "what the second packed is not shared with the third");
    ts_weights_free(first);
    ts_weights_free(second);
    CHECK(other[1] == 0 && large[1] == 2 && all[BLOCKS - 1][0] == (BLOCKS - 1) / 7, "the last owner lost its weights");
    ts_weights_free(second);
}

int main(void)
{
    keeps_equal_weights_once();
    CHECK(!ts_program_new(1, "sse9"), "an unknown level was accepted");
    CHECK(!ts_program_new(0, NULL), "zero threads were accepted");
    refuses_impossible_tensors();
    refuses_reads_beyond_the_frame();
    refuses_overflowing_sums();
    refuses_tensors_outside_the_arena();
    quantises_alike_on_all_levels(TS_BF16);
    quantises_alike_on_all_levels(TS_F32);
    gives_out_what_is_averaged(1);
    gives_out_what_is_averaged(3);
    puts("refusals are worded, levels agree");
    return 0;
}
