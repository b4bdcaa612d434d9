/* One group of channels of a pixel as floats in units of real values' quanta: what the unhurried steps compute with. */
#ifndef TS_VALUES_H
#define TS_VALUES_H

#include "layout/bf16.h"
#include "layout/tensor.h"

#include <math.h>

/* u8 values come without their zero point; multiply by the scale to get real values. */
static inline void ts_values_load(const ts_tensor *tensor, const uint8_t *source, float value[TS_GROUP])
{
    switch (tensor->desc.dtype) {
    case TS_U8:
        for (int i = 0; i < TS_GROUP; i++)
            value[i] = (float)(source[i] - tensor->desc.zero);
        break;
    case TS_BF16:
        for (int i = 0; i < TS_GROUP; i++)
            value[i] = ts_bf16_load(source + 2 * i);
        break;
    case TS_F32:
        memcpy(value, source, TS_GROUP * sizeof *value);
        break;
    }
}

static inline float ts_clamp(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

/* Rounds to nearest even, adds the zero point and saturates; NaN becomes the lowest value. */
static inline uint8_t ts_quantise(float value, int zero, float low, float high)
{
    const float shifted = rintf(value) + (float)zero;
    return (uint8_t)(shifted >= low ? (shifted <= high ? shifted : high) : low);
}

/* `low` and `high` clamp quantised values for u8 targets, real ones otherwise. */
static inline void ts_values_store(const ts_tensor *tensor, uint8_t *target, const float value[TS_GROUP], float low,
                                  float high)
{
    switch (tensor->desc.dtype) {
    case TS_U8:
        for (int i = 0; i < TS_GROUP; i++)
            target[i] = ts_quantise(value[i], tensor->desc.zero, low, high);
        break;
    case TS_BF16:
        for (int i = 0; i < TS_GROUP; i++)
            ts_bf16_store(target + 2 * i, ts_clamp(value[i], low, high));
        break;
    case TS_F32:
        for (int i = 0; i < TS_GROUP; i++) {
            const float clamped = ts_clamp(value[i], low, high);
            memcpy(target + 4 * i, &clamped, sizeof clamped);
        }
        break;
    }
}

/* The widest clamp of a tensor's dtype: none. */
static inline void ts_full_range(const ts_tensor *tensor, float *low, float *high)
{
    *low = tensor->desc.dtype == TS_U8 ? 0.0f : -INFINITY;
    *high = tensor->desc.dtype == TS_U8 ? 255.0f : INFINITY;
}

#endif
