/* Programs refuse what they cannot run, in words, and leak nothing when they do. */
#include "check.h"
#include "program.h"

#include <math.h>
#include <string.h>

static ts_tensor_desc plain(int channels, int side, size_t offset)
{
    return (ts_tensor_desc){.dtype = TS_F32, .channels = channels, .height = side, .width = side, .images = 1, .offset = offset};
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
    CHECK(!ts_program_run(program, data, TS_INPUT_F32_NCHW, 1, copy, NULL), "%s", ts_program_error(program));
    CHECK(memcmp(data, copy, sizeof data) == 0, "a program without layers changed its input");
    expect_refusal(program, ts_program_run(program, data, TS_INPUT_U8_NHWC, 1, copy, NULL), "uint8");
    ts_program_free(program);
}

int main(void)
{
    CHECK(!ts_program_new(1, "sse9"), "an unknown level was accepted");
    CHECK(!ts_program_new(0, NULL), "zero threads were accepted");
    refuses_impossible_tensors();
    refuses_reads_beyond_the_frame();
    refuses_overflowing_sums();
    refuses_tensors_outside_the_arena();
    puts("refusals are worded");
    return 0;
}
