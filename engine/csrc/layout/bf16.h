/* bfloat16: the upper half of a float, rounded to nearest even. */
#ifndef TS_BF16_H
#define TS_BF16_H

#include <stdint.h>
#include <string.h>

static inline float ts_bf16_load(const void *source)
{
    uint16_t half;
    memcpy(&half, source, sizeof half);
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void ts_bf16_store(void *target, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t half;
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        half = (uint16_t)((bits >> 16) | 0x40u); /* a NaN stays one */
    else
        half = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    memcpy(target, &half, sizeof half);
}

#endif
