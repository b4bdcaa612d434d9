/* What the hardware and the operating system offer. Apart from cpu.c, so that tests can offer what they emulate. */
#if defined(__x86_64__)
#define _GNU_SOURCE /* syscall */
#endif
#include "run/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

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
    if (bit(d7, 24) && (xcr0 & XCR0_TILES) == XCR0_TILES && request_amx_tiles())
        features |= (bit(d7, 25) ? TS_CPU_AMXINT8 : 0u) | (bit(d7, 22) ? TS_CPU_AMXBF16 : 0u);
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
