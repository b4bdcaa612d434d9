/* Plain C: for machines without a path of their own. */
#include "layout/bf16.h"
#include "kernels/table.h"

#include <math.h>

static void max_u8(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    /* Bytes compare like the values they stand for, whatever scale and zero point. */
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
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

static void max_f32(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
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

static void max_bf16(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step)
        for (int lane = 0; lane < TS_GROUP; lane++) {
            float best = ts_bf16_load(input + taps[0] + 2 * lane);
            for (int t = 1; t < tap_count; t++) {
                const float x = ts_bf16_load(input + taps[t] + 2 * lane);
                best = best > x ? best : x;
            }
            ts_bf16_store(output + 2 * lane, best);
        }
}

const ts_kernel ts_max_u8_scalar = {"max_u8_scalar", TS_MAXIMUM, TS_U8, 0, .maximum = max_u8};
const ts_kernel ts_max_f32_scalar = {"max_f32_scalar", TS_MAXIMUM, TS_F32, 0, .maximum = max_f32};
const ts_kernel ts_max_bf16_scalar = {"max_bf16_scalar", TS_MAXIMUM, TS_BF16, 0, .maximum = max_bf16};
