/* Which kernel each level gets, this CPU's or not: the best instruction that the level has, and never one that it lacks. */
#include "check.h"
#include "kernels/table.h"

#include <string.h>

/* The feature that the kernel of a dtype must use at a level. */
typedef struct {
    const char *level;
    ts_dtype dtype;
    uint32_t uses;
} expectation;

static const expectation expectations[] = {
    {"scalar", TS_U8, 0},
    {"scalar", TS_F32, 0},
    {"scalar", TS_BF16, 0},
#if defined(__x86_64__)
    {"avx2", TS_U8, TS_CPU_AVX2},
    {"avx2", TS_F32, TS_CPU_AVX2},
    {"avx2", TS_BF16, TS_CPU_AVX2},
#ifdef TS_WITH_AVXVNNI
    {"avxvnni", TS_U8, TS_CPU_AVXVNNI},
#endif
    {"avx512", TS_F32, TS_CPU_AVX512},
    {"avx512vnni", TS_U8, TS_CPU_AVX512VNNI},
    {"avx512bf16", TS_U8, TS_CPU_AVX512VNNI},
    {"avx512bf16", TS_BF16, TS_CPU_AVX512BF16},
    {"amx", TS_U8, TS_CPU_AVX512VNNI},
    {"amx", TS_BF16, TS_CPU_AVX512BF16},
#elif defined(__aarch64__)
    {"neon", TS_F32, TS_CPU_NEON},
    {"dotprod", TS_U8, TS_CPU_DOTPROD},
#ifdef TS_WITH_I8MM
    {"i8mm", TS_U8, TS_CPU_I8MM},
#endif
    {"i8mm", TS_F32, TS_CPU_NEON},
#endif
};

static const ts_isa_level *find_level(const char *name)
{
    const ts_isa_level *level = ts_isa_levels;
    while (level->name && strcmp(level->name, name) != 0)
        level++;
    CHECK(level->name, "no level is called %s", name);
    return level;
}

static void uses_the_best_of_each_level(void)
{
    for (size_t i = 0; i < sizeof expectations / sizeof *expectations; i++) {
        const expectation *e = expectations + i;
        const ts_kernel *kernel = ts_find_kernel(TS_CONV, e->dtype, find_level(e->level)->features);
        CHECK((kernel->features & e->uses) == e->uses, "level %s, dtype %d: %s", e->level, e->dtype, kernel->name);
    }
}

/* Convolutions of whole blocks run on the matrix unit wherever there is one, and tensors get its block. */
static void matrix_units_are_used(void)
{
#ifdef TS_WITH_AMX
    CHECK(ts_find_kernel(TS_MATRIX, TS_U8, find_level("amx")->features), "level amx has no matrix kernel for u8");
    CHECK(ts_find_kernel(TS_MATRIX, TS_BF16, find_level("amx")->features), "level amx has no matrix kernel for bfloat16");
    for (const ts_kernel *const *row = ts_kernels; *row; row++)
        CHECK((*row)->kind != TS_MATRIX || (*row)->matrix.block * ts_element_bytes((*row)->dtype) == TS_MATRIX_BYTES,
              "%s: block %d", (*row)->name, (*row)->matrix.block);
#endif
    CHECK(!ts_find_kernel(TS_MATRIX, TS_U8, 0), "a matrix unit without any CPU feature");
}

static void needs_no_more_than_each_level(void)
{
    for (const ts_isa_level *level = ts_isa_levels; level->name; level++)
        for (int dtype = 0; dtype < TS_DTYPES; dtype++) {
            const ts_kernel *kernel = ts_find_kernel(TS_CONV, (ts_dtype)dtype, level->features);
            CHECK(kernel->dtype == (ts_dtype)dtype, "level %s, dtype %d: %s", level->name, dtype, kernel->name);
            CHECK((kernel->features & ~level->features) == 0, "level %s, dtype %d: %s", level->name, dtype, kernel->name);
        }
}

static void every_level_has_what_steps_rely_on(void)
{
    for (const ts_isa_level *level = ts_isa_levels; level->name; level++) {
        for (int dtype = 0; dtype < TS_DTYPES; dtype++) {
            CHECK(ts_find_kernel(TS_MAXIMUM, (ts_dtype)dtype, level->features), "level %s: no maximum of dtype %d", level->name, dtype);
            CHECK(ts_find_kernel(TS_PEAK, (ts_dtype)dtype, level->features), "level %s: no peak of dtype %d", level->name, dtype);
        }
        CHECK(ts_find_kernel(TS_ADDITION, TS_U8, level->features), "level %s: no addition", level->name);
        CHECK(ts_find_kernel(TS_STREAM, TS_U8, level->features), "level %s: no stream", level->name);
    }
    CHECK(!ts_find_kernel(TS_WINOGRAD, TS_U8, 0), "Winograd's algorithm without any CPU feature");
}

/* The kernel that runs most products of a dtype; conv/bf16_int16.c has the rule of TS_INT16. */
static const ts_kernel *main_kernel(ts_dtype dtype, uint32_t features)
{
    const ts_kernel *matrix = ts_find_kernel(TS_MATRIX, dtype, features), *int16 = ts_find_kernel(TS_INT16, dtype, features);
    const ts_kernel *conv = ts_find_kernel(TS_CONV, dtype, features);
    if (matrix)
        return matrix;
    return int16 && !(conv->features & ~int16->features) ? int16 : conv;
}

/* Some rows leave out AVX2, which AVX-512 brings with it. */
static uint32_t in_full(uint32_t features)
{
    return features & TS_CPU_AVX512 ? features | TS_CPU_AVX2 : features;
}

/* A share of the peak means something only where its instructions are those of the kernel. */
static void peaks_are_of_the_kernels_in_use(void)
{
    for (const ts_isa_level *level = ts_isa_levels; level->name; level++)
        for (int dtype = 0; dtype < TS_DTYPES; dtype++) {
            const ts_kernel *peak = ts_find_kernel(TS_PEAK, (ts_dtype)dtype, level->features);
            const ts_kernel *kernel = main_kernel((ts_dtype)dtype, level->features);
            CHECK(in_full(peak->features) == in_full(kernel->features), "level %s, dtype %d: the peak is of %s, the kernel is %s",
                  level->name, dtype, peak->name, kernel->name);
        }
}

static void rows_keep_their_contract(void)
{
    for (const ts_kernel *const *row = ts_kernels; *row; row++) {
        if ((*row)->kind != TS_CONV)
            continue;
        const ts_conv_kernel *kernel = &(*row)->conv;
        const char *name = (*row)->name;
        CHECK(kernel->pixels >= 1 && kernel->pixels <= TS_MAX_PIXELS, "%s: %d pixels", name, kernel->pixels);
        CHECK(kernel->groups >= 1 && kernel->groups <= TS_MAX_GROUPS, "%s: %d groups", name, kernel->groups);
        CHECK(kernel->block % TS_GROUP == 0 && kernel->block >= TS_GROUP && kernel->block <= TS_MAX_BLOCK, "%s: block %d", name, kernel->block);
        for (int pixels = 1; pixels <= 2 * TS_MAX_PIXELS; pixels++) {
            int capacity = 0;
            CHECK(kernel->select(pixels, TS_GROUP, 0, &capacity), "%s: no tile for %d pixels", name, pixels);
            CHECK(capacity >= 1 && capacity <= kernel->pixels, "%s: a tile of %d pixels", name, capacity);
        }
    }
}

int main(void)
{
    uses_the_best_of_each_level();
    matrix_units_are_used();
    needs_no_more_than_each_level();
    every_level_has_what_steps_rely_on();
    peaks_are_of_the_kernels_in_use();
    rows_keep_their_contract();
    printf("every level gets its kernels; this CPU is %s\n", ts_cpu_level_name(ts_cpu_detect()));
    return 0;
}
