/* The few words that the native tests need. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Unlike assert, stays in release builds. */
#define CHECK(condition, ...)                                                   \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);     \
            fprintf(stderr, __VA_ARGS__);                                       \
            fputc('\n', stderr);                                                \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

/* xorshift64*: the same numbers on every machine. */
typedef struct {
    uint64_t state;
} random_source;

static inline uint32_t next_random(random_source *source)
{
    uint64_t x = source->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    source->state = x;
    return (uint32_t)((x * 0x2545f4914f6cdd1dull) >> 32);
}

static inline int random_between(random_source *source, int low, int high)
{
    return low + (int)(next_random(source) % (uint32_t)(high - low + 1));
}

#endif
