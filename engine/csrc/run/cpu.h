/* What this CPU can execute, and how much of it we are allowed to use. */
#ifndef TS_CPU_H
#define TS_CPU_H

#include <stdint.h>

/* One bit per instruction-set extension that some kernel needs. */
enum {
    TS_CPU_AVX2 = 1u << 0, /* AVX2 and FMA3, with the operating system saving ymm */
    TS_CPU_AVXVNNI = 1u << 1,
    TS_CPU_AVX512 = 1u << 2, /* F, BW, DQ, VL, with the operating system saving zmm */
    TS_CPU_AVX512VNNI = 1u << 3,
    TS_CPU_AVX512BF16 = 1u << 4,
    TS_CPU_AMXINT8 = 1u << 5,
    TS_CPU_NEON = 1u << 6,
    TS_CPU_DOTPROD = 1u << 7,
    TS_CPU_I8MM = 1u << 8,
    TS_CPU_AMXBF16 = 1u << 9,
};

/* A named level of `TESSERA_ISA`: the features it leaves switched on. */
typedef struct {
    const char *name;
    uint32_t features;
} ts_isa_level;

/* Rising order; ends with a null name. Level 0 is "scalar". */
extern const ts_isa_level ts_isa_levels[];

/* Features of the hardware and the operating system together (CPUID and XGETBV; getauxval on aarch64). */
uint32_t ts_cpu_detect(void);

/*
 * Detected features, masked by the named level. Null or "" asks for everything.
 * Returns 0 and sets *features; -1 when no level has that name.
 */
int ts_cpu_features(const char *level, uint32_t *features);

/* The highest level whose features are all within `features`. */
const char *ts_cpu_level_name(uint32_t features);

#endif
