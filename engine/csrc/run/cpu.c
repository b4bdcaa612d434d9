/* Levels: what is used of the features that cpu_detect.c finds. */
#include "run/cpu.h"

#include <stddef.h>
#include <string.h>

#define AVX512_ALL (TS_CPU_AVX2 | TS_CPU_AVX512)

const ts_isa_level ts_isa_levels[] = {
    {"scalar", 0},
#if defined(__x86_64__)
    {"avx2", TS_CPU_AVX2},
    {"avxvnni", TS_CPU_AVX2 | TS_CPU_AVXVNNI},
    {"avx512", AVX512_ALL},
    {"avx512vnni", AVX512_ALL | TS_CPU_AVX512VNNI},
    {"avx512bf16", AVX512_ALL | TS_CPU_AVX512VNNI | TS_CPU_AVX512BF16},
    {"amx", AVX512_ALL | TS_CPU_AVX512VNNI | TS_CPU_AVX512BF16 | TS_CPU_AMXINT8 | TS_CPU_AMXBF16},
#elif defined(__aarch64__)
    {"neon", TS_CPU_NEON},
    {"dotprod", TS_CPU_NEON | TS_CPU_DOTPROD},
    {"i8mm", TS_CPU_NEON | TS_CPU_DOTPROD | TS_CPU_I8MM},
#endif
    {NULL, 0},
};

int ts_cpu_features(const char *level, uint32_t *features)
{
    uint32_t allowed = ~0u;
    if (level && *level) {
        const ts_isa_level *row = ts_isa_levels;
        while (row->name && strcmp(row->name, level) != 0)
            row++;
        if (!row->name)
            return -1;
        allowed = row->features;
    }
    *features = ts_cpu_detect() & allowed;
    return 0;
}

const char *ts_cpu_level_name(uint32_t features)
{
    const char *name = ts_isa_levels[0].name;
    for (const ts_isa_level *row = ts_isa_levels; row->name; row++)
        if ((row->features & ~features) == 0)
            name = row->name;
    return name;
}
