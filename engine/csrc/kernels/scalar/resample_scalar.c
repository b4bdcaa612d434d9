/* Plain C: the reference, and for machines without a path of their own. */
#include "kernels/table.h"

static uint8_t rounded(uint32_t sum)
{
    const int32_t value = (int32_t)(sum + (1u << (TS_WEIGHT_BITS - 1))) >> TS_WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void across(const ts_resampling *axis, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t out_stride, int rows)
{
    for (int row = 0; row < rows; row++, in += in_stride, out += out_stride)
        for (int x = 0; x < axis->outputs; x++) {
            const ts_tap_pair *pairs = axis->pairs + (ptrdiff_t)x * axis->stride;
            const uint8_t *samples = in + (ptrdiff_t)axis->first[x] * TS_IN_PIXEL;
            for (int channel = 0; channel < TS_OUT_PIXEL; channel++) {
                uint32_t sum = 0;
                for (int tap = 0; tap < axis->taps[x]; tap++)
                    sum += (uint32_t)ts_tap_weight(pairs, tap) * samples[tap * TS_IN_PIXEL + channel];
                out[x * TS_OUT_PIXEL + channel] = rounded(sum);
            }
        }
}

static void down(const ts_resampling *axis, int output, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, int bytes)
{
    const ts_tap_pair *pairs = axis->pairs + (ptrdiff_t)output * axis->stride;
    in += axis->first[output] * in_stride;
    for (int i = 0; i < bytes; i++) {
        uint32_t sum = 0;
        for (int tap = 0; tap < axis->taps[output]; tap++)
            sum += (uint32_t)ts_tap_weight(pairs, tap) * in[tap * in_stride + i];
        out[i] = rounded(sum);
    }
}

const ts_kernel ts_resample_scalar = {"resample_scalar", TS_RESAMPLING, TS_U8, 0, .resample = {across, down}};
