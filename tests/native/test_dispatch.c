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
#ifdef TS_WITH_AMX
    {"amx", TS_U8, TS_CPU_AMXINT8},
#endif
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
        const ts_kernel *kernel = ts_find_kernel(e->dtype, find_level(e->level)->features);
        CHECK((kernel->features & e->uses) == e->uses, "level %s, dtype %d: %s", e->level, e->dtype, kernel->name);
    }
}

static void needs_no_more_than_each_level(void)
{
    for (const ts_isa_level *level = ts_isa_levels; level->name; level++)
        for (int dtype = TS_U8; dtype <= TS_BF16; dtype++) {
            const ts_kernel *kernel = ts_find_kernel((ts_dtype)dtype, level->features);
            CHECK(kernel->dtype == (ts_dtype)dtype, "level %s, dtype %d: %s", level->name, dtype, kernel->name);
            CHECK((kernel->features & ~level->features) == 0, "level %s, dtype %d: %s", level->name, dtype, kernel->name);
        }
}

static void rows_keep_their_contract(void)
{
    for (const ts_kernel *const *row = ts_kernels; *row; row++) {
        const ts_kernel *kernel = *row;
        CHECK(kernel->pixels >= 1 && kernel->pixels <= TS_MAX_PIXELS, "%s: %d pixels", kernel->name, kernel->pixels);
        CHECK(kernel->blocks >= 1 && kernel->blocks <= TS_MAX_BLOCKS, "%s: %d blocks", kernel->name, kernel->blocks);
        for (int pixels = 1; pixels <= 2 * TS_MAX_PIXELS; pixels++) {
            int capacity = 0;
            CHECK(kernel->select(pixels, TS_GROUP, 0, &capacity), "%s: no tile for %d pixels", kernel->name, pixels);
            CHECK(capacity >= 1 && capacity <= kernel->pixels, "%s: a tile of %d pixels", kernel->name, capacity);
        }
    }
}

int main(void)
{
    uses_the_best_of_each_level();
    needs_no_more_than_each_level();
    rows_keep_their_contract();
    printf("every level gets its kernels; this CPU is %s\n", ts_cpu_level_name(ts_cpu_detect()));
    return 0;
}
