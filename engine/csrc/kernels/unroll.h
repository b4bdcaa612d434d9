/* Small helpers of the kernel files: forced inlining, full unrolling, unaligned dwords. */
#ifndef TS_UNROLL_H
#define TS_UNROLL_H

#include <stdint.h>
#include <string.h>

#define TS_INLINE static inline __attribute__((always_inline))

/* Loops over tile indices must vanish at compile time, or the accumulators would live in memory. */
#define TS_UNROLL _Pragma("GCC unroll 24")

/*
 * A sum that is final here, in a register, before the next one begins. Left alone, compilers regroup sums and move loads
 * ahead until 16 registers no longer hold the accumulators.
 */
#define TS_KEEP(vector) __asm__ volatile("" : "+x"(vector) : : "memory")

/* The same for sums alone: loads may move. Emulated vectors are structures, which fit no register. */
#if !defined(TS_PIN) && defined(__aarch64__)
#define TS_PIN(vector) __asm__("" : "+w"(vector))
#elif !defined(TS_PIN)
#define TS_PIN(vector) __asm__("" : "+v"(vector))
#endif

/* An array that is in memory here, so that it takes no registers. */
#define TS_STORED(array) __asm__ volatile("" : "+m"(array))

TS_INLINE int32_t load_dword(const uint8_t *source)
{
    int32_t value;
    memcpy(&value, source, sizeof value);
    return value;
}

/* A row of pixels in nearly equal tiles: 7 are 4 and 3, not 6 and 1, for a tile of few pixels waits for its loads. */
TS_INLINE int even_share(int pixels, int widest)
{
    const int tiles = (pixels + widest - 1) / widest;
    return (pixels + tiles - 1) / tiles;
}

#endif
