/*
 * Single tiles of every u8 kernel against the scalar one, to the bit: random reductions, addresses, shapes and epilogues,
 * further than convolutions would go.
 */
#include "check.h"
#include "layout/bf16.h"
#include "kernels/table.h"

#include <math.h>
#include <string.h>

enum {
    ENTRIES = 40,
    REACH = 512,           /* of the reduction's offsets */
    CHANNELS = 32,         /* the tile starts at a random multiple of 16 up to here */
    GUARD = 64,            /* bytes around each run of the output that must stay as they are */
    LARGEST_BLOCK = 5 * TS_GROUP, /* C0 of what is stored */
    RUN_BYTES = TS_MAX_PIXELS * LARGEST_BLOCK * 4 + GUARD,
};

typedef struct {
    ts_tile tile;
    ts_epilogue epilogue;
    int32_t offsets[ENTRIES], bias[CHANNELS + TS_MAX_GROUPS * TS_GROUP];
    float scale[CHANNELS + TS_MAX_GROUPS * TS_GROUP];
    ptrdiff_t residual_groups[TS_MAX_GROUPS], output_groups[TS_MAX_GROUPS];
    uint8_t *input, *weights; /* exactly as large as the tile may read */
    uint8_t residual[2][TS_MAX_GROUPS + 1][RUN_BYTES], output[2][TS_MAX_GROUPS + 1][RUN_BYTES];
} tile_case;

static float random_real(random_source *random)
{
    return (float)random_between(random, -100000, 100000) / 256.0f;
}

static void fill_residual(tile_case *c, random_source *random)
{
    const int reals = c->epilogue.residual_dtype != TS_U8 && c->epilogue.out_dtype == TS_U8;
    uint8_t *bytes = &c->residual[0][0][0];
    for (size_t i = 0; i + 4 <= sizeof c->residual; i += 4) {
        const uint32_t any = next_random(random);
        const float value = reals && any % 50 == 0 ? NAN : random_real(random);
        if (c->epilogue.residual_dtype == TS_U8) {
            memcpy(bytes + i, &any, 4);
        } else if (c->epilogue.residual_dtype == TS_F32) {
            memcpy(bytes + i, &value, 4);
        } else {
            ts_bf16_store(bytes + i, value);
            ts_bf16_store(bytes + i + 2, value + 1);
        }
    }
}

static void fill_epilogue(tile_case *c, random_source *random)
{
    ts_epilogue *e = &c->epilogue;
    e->scale = c->scale;
    e->bias = c->bias;
    e->out_dtype = (ts_dtype)(random_between(random, 0, 2) ? TS_U8 : random_between(random, 0, 2));
    e->residual_dtype = (ts_dtype)(random_between(random, 0, 1) ? TS_U8 : random_between(random, 0, 2));
    e->residual_scale = random_real(random) / 256;
    e->low = 0;
    e->high = 255;
    e->float_low = -INFINITY;
    e->float_high = INFINITY;
    e->plain = e->out_dtype == TS_U8 && e->residual_dtype == TS_U8 && random_between(random, 0, 1);
    if (!e->plain) {
        e->out_zero = random_between(random, 0, 255);
        e->residual_zero = random_between(random, 0, 255);
        e->low = random_between(random, 0, 128);
        e->high = random_between(random, e->low, 255);
        e->float_low = random_between(random, 0, 1) ? 0.0f : -INFINITY;
        e->float_high = random_between(random, 0, 1) ? 6.0f : INFINITY;
    }
    e->whole_residual = e->plain && random_between(random, 0, 1);
    if (e->whole_residual)
        e->residual_scale = 1.0f;
    const float largest = random_between(random, 0, 1) ? 1e-4f : 1.0f;
    const int halves = e->whole_residual && random_between(random, 0, 1); /* every other sum lies between two results */
    for (size_t i = 0; i < sizeof c->scale / sizeof *c->scale; i++) {
        c->bias[i] = random_between(random, -100000, 100000);
        c->scale[i] = halves ? ldexpf(1.0f, -random_between(random, 1, 12)) : largest * (float)random_between(random, 0, 1000) / 1000.0f;
    }
}

/* Both operands random, or at the ends of their ranges, where inexact instructions would saturate. */
static void fill_operands(tile_case *c, random_source *random, size_t input_bytes, size_t weight_bytes)
{
    const int extreme = random_between(random, 0, 2) == 0;
    c->input = malloc(input_bytes);
    c->weights = aligned_alloc(TS_ALIGN, weight_bytes);
    CHECK(c->input && c->weights, "out of memory");
    for (size_t i = 0; i < input_bytes; i++)
        c->input[i] = (uint8_t)(extreme ? 255 * random_between(random, 0, 1) : random_between(random, 0, 255));
    for (size_t i = 0; i < weight_bytes; i++)
        c->weights[i] = (uint8_t)(extreme ? 127 + random_between(random, 0, 1) : random_between(random, 0, 255));
}

static int tile_width(const ts_kernel *kernel, int pixels, int split, ptrdiff_t pixel_step)
{
    int capacity;
    CHECK(kernel->conv.select(pixels, pixel_step, split, &capacity), "%s has no tile for %d pixels", kernel->name, pixels);
    return pixels < capacity ? pixels : capacity;
}

/* Groups of pixels in blocks of random size, from a random group on. Returns the bytes between pixels. */
static ptrdiff_t place_groups(ts_dtype dtype, random_source *random, ptrdiff_t groups[TS_MAX_GROUPS])
{
    const int per_block = random_between(random, 0, 1) ? 1 : random_between(random, 1, LARGEST_BLOCK / TS_GROUP);
    const int first = random_between(random, 0, per_block - 1);
    const ptrdiff_t group_bytes = TS_GROUP * ts_element_bytes(dtype);
    for (int n = 0; n < TS_MAX_GROUPS; n++)
        groups[n] = (first + n) / per_block * RUN_BYTES + (first + n) % per_block * group_bytes;
    return per_block * group_bytes;
}

static tile_case *new_case(const ts_kernel *kernel, random_source *random)
{
    static const int steps[] = {3, 6, 16, 32, 48};
    tile_case *c = calloc(1, sizeof *c);
    CHECK(c, "out of memory");
    ts_tile *t = &c->tile;
    int capacity;
    t->pixel_step = steps[next_random(random) % 5];
    t->groups = random_between(random, 1, kernel->conv.groups);
    t->pixels = tile_width(kernel, random_between(random, 1, 2 * kernel->conv.pixels), 0, t->pixel_step);
    t->split = t->pixels;
    if (random_between(random, 0, 2) == 0 && kernel->conv.select(14, t->pixel_step, 7, &capacity)) {
        t->split = 7;
        t->pixels = random_between(random, 0, 3) ? 14 : 7;
    }
    t->entries = random_between(random, 0, ENTRIES);
    for (int i = 0; i < t->entries; i++)
        c->offsets[i] = random_between(random, 0, REACH);
    const size_t run = REACH + TS_STEP_BYTES + (size_t)t->pixel_step * (TS_MAX_PIXELS - 1);
    fill_operands(c, random, 2 * run, (size_t)(t->entries ? t->entries : 1) * 2 * 64 * (size_t)kernel->conv.groups);
    fill_epilogue(c, random);
    fill_residual(c, random);
    for (int i = 0; i < 2; i++) {
        t->input[i] = c->input + (size_t)i * run;
        t->residual[i] = c->residual[i][0];
        t->output[i] = c->output[i][0] + GUARD / 2;
    }
    if (random_between(random, 0, 2) == 0)
        t->residual[0] = t->residual[1] = NULL;
    t->residual_groups = c->residual_groups;
    t->output_groups = c->output_groups;
    t->residual_step = place_groups(c->epilogue.residual_dtype, random, c->residual_groups);
    t->output_step = place_groups(c->epilogue.out_dtype, random, c->output_groups);
    t->offsets = c->offsets;
    t->weights = c->weights;
    t->channel = (size_t)random_between(random, 0, CHANNELS / TS_GROUP) * TS_GROUP;
    t->epilogue = &c->epilogue;
    memset(c->output, 0xa5, sizeof c->output);
    return c;
}

static void free_case(tile_case *c)
{
    free(c->input);
    free(c->weights);
    free(c);
}

/* The scalar kernel knows one group only: one call a group, with the group's part of the panel. */
static void run_scalar(const tile_case *c, int panel_groups)
{
    int capacity;
    const ts_tile_fn function = ts_conv_u8s8_scalar.conv.select(1, c->tile.pixel_step, 0, &capacity);
    uint8_t *panel = malloc((size_t)(c->tile.entries + 1) * 2 * 64);
    CHECK(panel, "out of memory");
    for (int n = 0; n < c->tile.groups; n++) {
        ts_tile t = c->tile;
        for (int dword = 0; dword < 2 * t.entries; dword++)
            memcpy(panel + 64 * dword, c->weights + (size_t)64 * (size_t)(dword * panel_groups + n), 64);
        t.weights = panel;
        t.groups = 1;
        t.channel += (size_t)n * TS_GROUP;
        t.output_groups += n;
        t.residual_groups += n;
        function(&t);
    }
    free(panel);
}

static void check_kernel(const ts_kernel *kernel, int rounds, random_source *random)
{
    for (int round = 0; round < rounds; round++) {
        tile_case *c = new_case(kernel, random);
        const ts_tile *t = &c->tile;
        uint8_t *actual = malloc(sizeof c->output);
        CHECK(actual, "out of memory");
        int capacity;
        kernel->conv.select(t->pixels, t->pixel_step, t->split < t->pixels ? t->split : 0, &capacity)(t);
        memcpy(actual, c->output, sizeof c->output);
        memset(c->output, 0xa5, sizeof c->output);
        run_scalar(c, kernel->conv.groups);
        for (size_t i = 0; i < sizeof c->output; i++)
            CHECK(actual[i] == (&c->output[0][0][0])[i],
                  "%s, round %d: byte %zu is %d instead of %d (%d pixels, split %d, step %d, %d groups, %d entries, residual %d "
                  "of dtype %d, out dtype %d, plain %d, whole residual %d, stored every %d)",
                  kernel->name, round, i, actual[i], (&c->output[0][0][0])[i], t->pixels, t->split, (int)t->pixel_step,
                  t->groups, t->entries, t->residual[0] != NULL, c->epilogue.residual_dtype, c->epilogue.out_dtype,
                  c->epilogue.plain, c->epilogue.whole_residual, (int)t->output_step);
        free(actual);
        free_case(c);
    }
    printf("%d tiles of %s\n", rounds, kernel->name);
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? atoi(argv[1]) : 2000;
    random_source random = {argc > 2 ? strtoull(argv[2], NULL, 10) : 20261123};
    const uint32_t features = ts_cpu_detect();
    for (const ts_kernel *const *row = ts_kernels; *row; row++)
        if ((*row)->kind == TS_CONV && (*row)->dtype == TS_U8 && (*row)->conv.packing == TS_PACK_DWORD && ((*row)->features & ~features) == 0)
            check_kernel(*row, rounds, &random);
    return 0;
}
