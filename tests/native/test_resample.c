/*
 * Resizing kernels against the scalar one, to the bit: random weights, among them those that no filter has, sums at the ends of
 * their range, and memory exactly as large as a kernel may read and write.
 */
#include "check.h"
#include "image/resize.h"
#include "kernels/table.h"

#include <string.h>

enum { MOST_SAMPLES = 90, MOST_OUTPUTS = 40, MOST_TAPS = 13, MOST_ROWS = 21, STRIDE = (MOST_TAPS + 1) / 2, BEHIND = 63 };

typedef struct {
    ts_resampling axis;
    int samples, rows;
    int32_t first[MOST_OUTPUTS], taps[MOST_OUTPUTS];
    ts_tap_pair pairs[MOST_OUTPUTS * STRIDE];
} resample_case;

/* Weights whose sum of magnitudes is at most about 2, as the steepest of filters have. */
static void fill_case(resample_case *c, random_source *random)
{
    memset(c, 0, sizeof *c);
    c->axis = (ts_resampling){random_between(random, 1, MOST_OUTPUTS), STRIDE, c->first, c->taps, c->pairs};
    c->samples = random_between(random, 1, MOST_SAMPLES);
    c->rows = random_between(random, 1, MOST_ROWS);
    for (int i = 0; i < c->axis.outputs; i++) {
        const int most = c->samples < MOST_TAPS ? c->samples : MOST_TAPS;
        c->taps[i] = random_between(random, 1, most);
        c->first[i] = random_between(random, 0, c->samples - c->taps[i]);
        const int largest = (1 << TS_WEIGHT_BITS) * 2 / c->taps[i];
        for (int tap = 0; tap < c->taps[i]; tap++) {
            const int32_t weight = random_between(random, 0, 3) ? random_between(random, -largest, largest) : largest;
            const int32_t low = weight & ((1 << TS_LOW_BITS) - 1);
            ts_tap_pair *pair = c->pairs + i * STRIDE + tap / 2;
            pair->low[tap % 2] = (int16_t)low;
            pair->high[tap % 2] = (int16_t)((weight - low) / (1 << TS_LOW_BITS));
            CHECK(ts_tap_weight(c->pairs + i * STRIDE, tap) == weight, "a weight is its two halves");
        }
    }
}

static uint8_t *random_bytes(size_t bytes, random_source *random)
{
    uint8_t *memory = malloc(bytes);
    CHECK(memory, "out of memory");
    const int extreme = random_between(random, 0, 1);
    for (size_t i = 0; i < bytes; i++)
        memory[i] = (uint8_t)(extreme ? 255 * random_between(random, 0, 1) : random_between(random, 0, 255));
    return memory;
}

static void check_across(const ts_kernel *kernel, const ts_kernel *reference, random_source *random)
{
    resample_case c;
    fill_case(&c, random);
    const ptrdiff_t in_stride = c.samples * TS_IN_PIXEL, bytes = c.axis.outputs * TS_OUT_PIXEL, out_stride = bytes + 1;
    uint8_t *in = random_bytes((size_t)(in_stride * c.rows), random);
    uint8_t *out = malloc((size_t)(out_stride * c.rows)), *wanted = malloc((size_t)(out_stride * c.rows));
    CHECK(out && wanted, "out of memory");
    kernel->resample.across(&c.axis, in, in_stride, out, out_stride, c.rows);
    reference->resample.across(&c.axis, in, in_stride, wanted, out_stride, c.rows);
    for (int row = 0; row < c.rows; row++)
        CHECK(memcmp(out + row * out_stride, wanted + row * out_stride, (size_t)bytes) == 0, "%s: row %d of %d, %d outputs of %d samples",
              kernel->name, row, c.rows, c.axis.outputs, c.samples);
    free(in), free(out), free(wanted);
}

static void check_down(const ts_kernel *kernel, const ts_kernel *reference, random_source *random)
{
    resample_case c;
    fill_case(&c, random);
    const int bytes = random_between(random, 1, 100);
    uint8_t *in = random_bytes((size_t)(bytes * c.samples + BEHIND), random);
    uint8_t *out = malloc((size_t)bytes), *wanted = malloc((size_t)bytes);
    CHECK(out && wanted, "out of memory");
    for (int i = 0; i < c.axis.outputs; i++) {
        kernel->resample.down(&c.axis, i, in, bytes, out, bytes);
        reference->resample.down(&c.axis, i, in, bytes, wanted, bytes);
        CHECK(memcmp(out, wanted, (size_t)bytes) == 0, "%s: output %d of %d bytes", kernel->name, i, bytes);
    }
    free(in), free(out), free(wanted);
}

/* A whole resize from rows that come in pieces, from pictures down to one pixel. */
static void check_resize(uint32_t features, random_source *random)
{
    ts_resize_desc desc = {.filter = random_between(random, 0, 1) ? TS_BICUBIC : TS_BILINEAR};
    for (int i = 0; i < 2; i++) {
        ts_axis *axis = i ? &desc.down : &desc.across;
        axis->samples = random_between(random, 1, 400);
        axis->merged = 1 << random_between(random, 0, 3);
        axis->extent = axis->samples - random_between(random, 0, 3) / 4.0;
        axis->resized = random_between(random, 1, 300);
        axis->outputs = random_between(random, 1, (int)axis->resized);
        axis->start = random_between(random, 0, (int)axis->resized - axis->outputs);
    }
    const int width = desc.across.samples, height = desc.down.samples;
    const size_t bytes = (size_t)desc.across.outputs * (size_t)desc.down.outputs * TS_OUT_PIXEL;
    uint8_t *picture = random_bytes((size_t)width * (size_t)height * TS_IN_PIXEL, random);
    uint8_t *out[2] = {malloc(bytes), malloc(bytes)};
    CHECK(out[0] && out[1], "out of memory");
    for (int i = 0; i < 2; i++) {
        ts_resize *resize = ts_resize_new(&desc, i ? features : 0);
        CHECK(resize && !ts_resize_complete(resize), "a resize begins without rows");
        const ts_box box = ts_resize_box(resize);
        for (int top = 0, rows; top < height; top += rows) {
            rows = i ? random_between(random, 1, height - top) : height;
            ts_resize_take(resize, picture + ((ptrdiff_t)top * width + box.left) * TS_IN_PIXEL, (ptrdiff_t)width * TS_IN_PIXEL, top, rows);
        }
        CHECK(ts_resize_complete(resize), "all rows were taken");
        ts_resize_finish(resize, out[i]);
        ts_resize_free(resize);
    }
    CHECK(memcmp(out[0], out[1], bytes) == 0, "%d x %d pixels differ", width, height);
    free(picture), free(out[0]), free(out[1]);
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? atoi(argv[1]) : 500;
    random_source random = {12345};
    const uint32_t features = ts_cpu_detect();
    const ts_kernel *reference = ts_find_kernel(TS_RESAMPLING, TS_U8, 0);
    for (const ts_kernel *const *row = ts_kernels; *row; row++) {
        if ((*row)->kind != TS_RESAMPLING || ((*row)->features & ~features))
            continue;
        for (int round = 0; round < rounds; round++) {
            check_across(*row, reference, &random);
            check_down(*row, reference, &random);
        }
        for (int round = 0; round < rounds / 5; round++)
            check_resize((*row)->features, &random);
        printf("%s: %d cases\n", (*row)->name, rounds);
    }
    return 0;
}
