#if defined(__x86_64__)
#define _GNU_SOURCE /* syscall */
#endif
#include "run/cpu.h"

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define AVX512_ALL (TS_CPU_AVX2 | TS_CPU_AVX512)

const ts_isa_level ts_isa_levels[] = {
    {"scalar", 0},
#if defined(__x86_64__)
    {"avx2", TS_CPU_AVX2},
    {"avxvnni", TS_CPU_AVX2 | TS_CPU_AVXVNNI},
    {"avx512", AVX512_ALL},
    {"avx512vnni", AVX512_ALL | TS_CPU_AVX512VNNI},
    {"avx512bf16", AVX512_ALL | TS_CPU_AVX512VNNI | TS_CPU_AVX512BF16},
    {"amx", AVX512_ALL | TS_CPU_AVX512VNNI | TS_CPU_AVX512BF16 | TS_CPU_AMXINT8},
#elif defined(__aarch64__)
    {"neon", TS_CPU_NEON},
    {"dotprod", TS_CPU_NEON | TS_CPU_DOTPROD},
    {"i8mm", TS_CPU_NEON | TS_CPU_DOTPROD | TS_CPU_I8MM},
#endif
    {NULL, 0},
};

#if defined(__x86_64__)

static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static int bit(uint32_t word, int index)
{
    return (int)((word >> index) & 1u);
}

/* Linux hands out the AMX tile registers only to processes that ask for them (arch_prctl(2)). */
static int request_amx_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

uint32_t ts_cpu_detect(void)
{
    enum { XCR0_YMM = 0x6, XCR0_ZMM = 0xe6, XCR0_TILES = 0x60000 };
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) /* OSXSAVE */
        return 0;
    const int fma = bit(c, 12), avx = bit(c, 28), f16c = bit(c, 29);
    const uint64_t xcr0 = read_xcr0();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    const uint32_t b7 = b, c7 = c, d7 = d, subleaves = a;
    uint32_t a71 = 0;
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
        a71 = a;
    if (!(avx && fma && f16c && bit(b7, 5)) || (xcr0 & XCR0_YMM) != XCR0_YMM)
        return 0;
    features |= TS_CPU_AVX2;
    if (bit(a71, 4))
        features |= TS_CPU_AVXVNNI;
    const int avx512 = bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31);
    if (!avx512 || (xcr0 & XCR0_ZMM) != XCR0_ZMM)
        return features;
    features |= TS_CPU_AVX512;
    if (bit(c7, 11))
        features |= TS_CPU_AVX512VNNI;
    if (bit(a71, 5))
        features |= TS_CPU_AVX512BF16;
    if (bit(d7, 24) && bit(d7, 25) && (xcr0 & XCR0_TILES) == XCR0_TILES && request_amx_tiles())
        features |= TS_CPU_AMXINT8;
    return features;
}

#elif defined(__aarch64__)

uint32_t ts_cpu_detect(void)
{
    enum { HWCAP_ASIMD_BIT = 1 << 1, HWCAP_ASIMDDP_BIT = 1 << 20, HWCAP2_I8MM_BIT = 1 << 13 };
    const unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
    uint32_t features = 0;
    if (hwcap & HWCAP_ASIMD_BIT)
        features |= TS_CPU_NEON;
    if (hwcap & HWCAP_ASIMDDP_BIT)
        features |= TS_CPU_DOTPROD;
    if (hwcap2 & HWCAP2_I8MM_BIT)
        features |= TS_CPU_I8MM;
    return features;
}

#else

uint32_t ts_cpu_detect(void)
{
    return 0;
}

#endif

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
