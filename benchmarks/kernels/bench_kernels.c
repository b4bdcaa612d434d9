/*
 * Every row of the kernel table that this CPU can run, on the layer classes of ResNet-50: GMAC/s, MAC per cycle, and
 * share of the register peak measured in the same run. Operands lie in L1 or L2, so this shows the micro-kernel alone;
 * `tessera profile` shows whole layers.
 *
 *     make bench-kernels
 *     build/native-plain/benchmarks/bench_kernels avx2     # only kernels with this in their name
 *     make tune            # the fastest tile of each family for each width, as lines of engine/csrc/tuning.def
 */
#define _POSIX_C_SOURCE 200809L
#include "conv/chain_forming.h"
#include "kernels/table.h"
#include "run/peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    const char *name;
    int width;     /* output pixels of a row */
    int reduction; /* input channels times taps */
    int stride;
    int joined;    /* two rows of 7 in one tile */
} layer_class;

static const layer_class classes[] = {
    {"1x1 @56, K 64", 56, 64, 1, 0},     {"1x1 @56, K 256", 56, 256, 1, 0},   {"3x3 @56, K 576", 56, 576, 1, 0},
    {"1x1 @28, K 512", 28, 512, 1, 0},   {"3x3 @28, K 1152", 28, 1152, 1, 0}, {"3x3 /2 @28, K 1152", 28, 1152, 2, 0},
    {"1x1 @14, K 1024", 14, 1024, 1, 0}, {"3x3 @14, K 2304", 14, 2304, 1, 0}, {"1x1 @7, K 2048", 7, 2048, 1, 1},
    {"3x3 @7, K 4608", 7, 4608, 1, 1},   {"fc, K 2048", 1, 2048, 1, 0},
};

enum { ROUNDS = 15, ROUND_NS = 4000000 };

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Cycles a nanosecond, from a chain of additions that takes one cycle each. */
static double clock_rate(void)
{
    enum { ADDS = 20000000 };
    double best = 0;
    for (int round = 0; round < 5; round++) {
        uint64_t x = (uint64_t)round;
        const double start = now_ns();
        for (int i = 0; i < ADDS; i++) {
            x += 3;
            __asm__ volatile("" : "+r"(x));
        }
        const double rate = ADDS / (now_ns() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

typedef struct {
    uint8_t *input, *output, *weights;
    float *parameters;
    int32_t *offsets;
    ts_chains chains;
    ts_epilogue epilogue;
    ts_tile tile;
} setup;

static void *zeroed(size_t bytes)
{
    const size_t size = (bytes + 4095) / 4096 * 4096 + 4096;
    void *memory = aligned_alloc(64, size);
    if (!memory)
        exit(1);
    return memset(memory, 0, size);
}

/* Bell-shaped with a deviation of 25, as in quantised networks: the speed of kernels that want chains depends on it. */
static int8_t random_weight(uint32_t *state)
{
    int sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 1664525u + 1013904223u;
        sum += (int)(*state >> 8) % 44 - 22;
    }
    return (int8_t)sum;
}

static void chain_weights(setup *s, int entries)
{
    const size_t room = (size_t)entries * 4 + 4;
    int8_t *weights = zeroed(room * 64);
    int32_t *offsets = zeroed(room * sizeof *offsets);
    uint32_t state = 1;
    for (int i = 0; i < 2 * entries; i++)
        offsets[i] = s->offsets[i / 2] + i % 2 * 4;
    for (int i = 0; i < 2 * entries * 64; i++)
        weights[i] = random_weight(&state);
    for (int i = 0; i < TS_CHAIN; i++) {
        s->chains.members[i] = zeroed(room * sizeof *s->chains.members[i]);
        s->chains.weights[i] = zeroed(room * 64);
    }
    if (ts_form_chains(weights, offsets, 2 * entries, &s->chains))
        exit(1);
    for (int i = 0; i < TS_CHAIN; i++)
        s->tile.chains[i] = (ts_member_list){s->chains.members[i], s->chains.weights[i], s->chains.counts[i]};
    free(weights);
    free(offsets);
}

/* All pixels of a row side by side in one plane for each 16 bytes of reduction, as in NC1HWC0. */
static setup prepare(const ts_kernel *kernel, const layer_class *class)
{
    const int element = ts_element_bytes(kernel->dtype);
    const int pixel = TS_GROUP * element, per_entry = TS_STEP_BYTES / element;
    const int runs = (class->reduction + TS_GROUP - 1) / TS_GROUP, entries = runs * (TS_GROUP / per_entry);
    const size_t plane = (size_t)(2 * class->width + 32) * (size_t)pixel * (size_t)class->stride;
    setup s = {0};
    s.input = zeroed(plane * (size_t)runs);
    s.output = zeroed((size_t)(64 * 2 * TS_GROUP * 4) * TS_MAX_GROUPS);
    s.weights = zeroed((size_t)entries * 2 * (size_t)kernel->conv.groups * 64 * 2 + 4096);
    s.parameters = zeroed(2 * TS_MAX_GROUPS * TS_GROUP * sizeof(float));
    s.offsets = zeroed((size_t)entries * sizeof(int32_t));
    for (int e = 0; e < entries; e++)
        s.offsets[e] = (int32_t)((size_t)(e / (TS_GROUP / per_entry)) * plane) + e % (TS_GROUP / per_entry) * TS_STEP_BYTES;
    s.epilogue = (ts_epilogue){.scale = kernel->dtype == TS_U8 ? s.parameters : NULL, .bias = s.parameters + 64,
                               .out_dtype = kernel->dtype, .high = 255, .float_low = -INFINITY,
                               .float_high = INFINITY, .plain = kernel->dtype == TS_U8};
    static ptrdiff_t output_groups[TS_MAX_GROUPS];
    for (int n = 0; n < TS_MAX_GROUPS; n++)
        output_groups[n] = n * 64 * 2 * TS_GROUP * element;
    const size_t row = (size_t)class->width * (size_t)pixel;
    s.tile = (ts_tile){.input = {s.input, s.input + row * (size_t)class->stride}, .output = {s.output, s.output + row},
                       .groups = kernel->conv.groups, .pixel_step = (ptrdiff_t)pixel * class->stride, .output_step = pixel,
                       .output_groups = output_groups, .offsets = s.offsets, .entries = entries,
                       .weights = s.weights};
    if (kernel->conv.packing == TS_PACK_CHAINS)
        chain_weights(&s, entries);
    return s;
}

static void release(setup *s)
{
    free(s->input);
    free(s->output);
    free(s->weights);
    free(s->parameters);
    free(s->offsets);
    for (int i = 0; i < TS_CHAIN; i++) {
        free(s->chains.members[i]);
        free(s->chains.weights[i]);
    }
}

/* One row of output pixels, as conv/rows.c cuts it. Returns the pixels done. */
static int run_row(const ts_kernel *kernel, const layer_class *class, const setup *s)
{
    int capacity;
    ts_tile tile = s->tile;
    tile.epilogue = &s->epilogue;
    if (class->joined) {
        const ts_tile_fn function = kernel->conv.select(14, tile.pixel_step, 7, &capacity);
        if (function) {
            tile.pixels = 14;
            tile.split = 7;
            function(&tile);
            return 14;
        }
    }
    for (int left = class->width; left > 0; left -= tile.pixels) {
        const ts_tile_fn function = kernel->conv.select(left, tile.pixel_step, 0, &capacity);
        tile.pixels = tile.split = left < capacity ? left : capacity;
        function(&tile);
        tile.input[0] += tile.pixels * tile.pixel_step;
    }
    return class->width;
}

static double median_rate(const ts_kernel *kernel, const layer_class *class)
{
    setup s = prepare(kernel, class);
    const double macs = (double)run_row(kernel, class, &s) * class->reduction * kernel->conv.groups * TS_GROUP;
    double rates[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        int repeats = 0;
        const double start = now_ns();
        double end = start;
        for (; end - start < ROUND_NS; end = now_ns())
            for (int i = 0; i < 8; i++, repeats++)
                run_row(kernel, class, &s);
        rates[round] = macs * repeats / (end - start);
    }
    release(&s);
    qsort(rates, ROUNDS, sizeof *rates, by_value);
    return rates[ROUNDS / 2];
}

/* The lowest level that has all of these features. */
static const char *least_level(uint32_t features)
{
    const ts_isa_level *row = ts_isa_levels;
    while (row[1].name && (features & ~row->features))
        row++;
    return row->name;
}

static int same_family(const ts_kernel *a, const ts_kernel *b)
{
    return a->kind == TS_CONV && b->kind == TS_CONV && a->dtype == b->dtype && a->features == b->features;
}

/* Prints a line for each width at which another tile beats the family's first by more than the noise. */
static void tune_family(const ts_kernel *const *first)
{
    const double noise = 1.03;
    for (size_t c = 0; c < sizeof classes / sizeof *classes; c++) {
        const ts_kernel *best = *first;
        double best_rate = noise * median_rate(*first, &classes[c]);
        for (const ts_kernel *const *row = first + 1; *row; row++) {
            const double rate = same_family(*first, *row) ? median_rate(*row, &classes[c]) : 0;
            if (rate > best_rate) {
                best = *row;
                best_rate = rate;
            }
        }
        if (best != *first)
            printf("TS_TUNED(%d, %d, %s) /* %s */\n", classes[c].width, classes[c].width, best->name, classes[c].name);
    }
}

static void tune(uint32_t features)
{
    for (const ts_kernel *const *row = ts_kernels; *row; row++) {
        int first = (*row)->kind == TS_CONV && ((*row)->features & ~features) == 0;
        for (const ts_kernel *const *earlier = ts_kernels; earlier < row; earlier++)
            first = first && !same_family(*earlier, *row);
        if (first)
            tune_family(row);
    }
}

int main(int argc, char **argv)
{
    const uint32_t features = ts_cpu_detect();
    if (argc > 1 && strcmp(argv[1], "--tune") == 0) {
        tune(features);
        return 0;
    }
    const double clock = clock_rate();
    printf("clock %.2f GHz, level %s, median of %d rounds, one thread\n\n", clock, ts_cpu_level_name(features), ROUNDS);
    printf("| kernel | layer class | GMAC/s | MAC/cycle | of peak |\n|---|---|---:|---:|---:|\n");
    for (const ts_kernel *const *row = ts_kernels; *row; row++) {
        if ((*row)->kind != TS_CONV || ((*row)->features & ~features) != 0 || (argc > 1 && !strstr((*row)->name, argv[1])))
            continue;
        const char *level = least_level((*row)->features);
        const double peak = ts_measure_peak((*row)->dtype, 1, level) / 1e9;
        for (size_t c = 0; c < sizeof classes / sizeof *classes; c++) {
            const double rate = median_rate(*row, &classes[c]);
            printf("| %s | %s | %.1f | %.1f | %.0f %% |\n", (*row)->name, classes[c].name, rate, rate / clock, 100 * rate / peak);
        }
    }
    return 0;
}
