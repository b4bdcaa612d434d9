/* Plain C: for machines without a path of their own. */
#include "layout/bf16.h"
#include "kernels/pool_kernels.h"

#include <math.h>

static void max_u8(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output, int pixels)
{
    /* Bytes compare like the values they stand for, whatever scale and zero point. */
    for (int p = 0; p < pixels; p++, input += step, output += TS_GROUP) {
        uint8_t best[TS_GROUP];
        memcpy(best, input + taps[0], sizeof best);
        for (int t = 1; t < tap_count; t++) {
            const uint8_t *x = input + taps[t];
            for (int lane = 0; lane < TS_GROUP; lane++)
                best[lane] = x[lane] > best[lane] ? x[lane] : best[lane];
        }
        memcpy(output, best, sizeof best);
    }
}

static void max_f32(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += 4 * TS_GROUP) {
        float best[TS_GROUP], x[TS_GROUP];
        memcpy(best, input + taps[0], sizeof best);
        for (int t = 1; t < tap_count; t++) {
            memcpy(x, input + taps[t], sizeof x);
            for (int lane = 0; lane < TS_GROUP; lane++)
                best[lane] = best[lane] > x[lane] ? best[lane] : x[lane];
        }
        memcpy(output, best, sizeof best);
    }
}

static void max_bf16(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += 2 * TS_GROUP)
        for (int lane = 0; lane < TS_GROUP; lane++) {
            float best = ts_bf16_load(input + taps[0] + 2 * lane);
            for (int t = 1; t < tap_count; t++) {
                const float x = ts_bf16_load(input + taps[t] + 2 * lane);
                best = best > x ? best : x;
            }
            ts_bf16_store(output + 2 * lane, best);
        }
}

const ts_max_kernel ts_max_u8_scalar = {"max_u8_scalar", 0, TS_U8, max_u8};
const ts_max_kernel ts_max_f32_scalar = {"max_f32_scalar", 0, TS_F32, max_f32};
const ts_max_kernel ts_max_bf16_scalar = {"max_bf16_scalar", 0, TS_BF16, max_bf16};
