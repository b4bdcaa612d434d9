/* Products of 32 bits, which NEON has at the speed of sums: the weights are put together again. */
#include "kernels/table.h"

#include <arm_neon.h>
#include <string.h>

enum { ROWS = 4, DOWN_BYTES = 16 };

static uint8x8_t narrow(int32x4_t left, int32x4_t right)
{
    return vqmovun_s16(vcombine_s16(vqmovn_s32(vshrq_n_s32(left, TS_WEIGHT_BITS)), vqmovn_s32(vshrq_n_s32(right, TS_WEIGHT_BITS))));
}

static int32x4_t pixel(const uint8_t *source)
{
    uint32_t bytes;
    memcpy(&bytes, source, sizeof bytes);
    const uint16x8_t words = vmovl_u8(vcreate_u8(bytes));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
}

/* Rows that the picture lacks are another time its last one. */
static void across(const ts_resampling *axis, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t out_stride, int rows)
{
    for (int row = 0; row < rows; row += ROWS)
        for (int x = 0; x < axis->outputs; x++) {
            const ts_tap_pair *pairs = axis->pairs + (ptrdiff_t)x * axis->stride;
            int32x4_t sum[ROWS];
            const uint8_t *from[ROWS];
            ptrdiff_t place[ROWS];
            for (int i = 0; i < ROWS; i++) {
                place[i] = row + i < rows ? row + i : rows - 1;
                from[i] = in + place[i] * in_stride + (ptrdiff_t)axis->first[x] * TS_IN_PIXEL;
                sum[i] = vdupq_n_s32(1 << (TS_WEIGHT_BITS - 1));
            }
            for (int tap = 0; tap < axis->taps[x]; tap++) {
                const int32_t weight = ts_tap_weight(pairs, tap);
                for (int i = 0; i < ROWS; i++)
                    sum[i] = vmlaq_n_s32(sum[i], pixel(from[i] + tap * TS_IN_PIXEL), weight);
            }
            for (int i = 0; i < ROWS; i += 2) {
                uint8_t pixels[8];
                vst1_u8(pixels, narrow(sum[i], sum[i + 1]));
                memcpy(out + place[i] * out_stride + x * TS_OUT_PIXEL, pixels, 4);
                memcpy(out + place[i + 1] * out_stride + x * TS_OUT_PIXEL, pixels + 4, 4);
            }
        }
}

static uint8x16_t column(const ts_tap_pair *pairs, int taps, const uint8_t *in, ptrdiff_t stride)
{
    int32x4_t sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = vdupq_n_s32(1 << (TS_WEIGHT_BITS - 1));
    for (int tap = 0; tap < taps; tap++, in += stride) {
        const int32_t weight = ts_tap_weight(pairs, tap);
        const uint8x16_t bytes = vld1q_u8(in);
        const uint16x8_t left = vmovl_u8(vget_low_u8(bytes)), right = vmovl_u8(vget_high_u8(bytes));
        sum[0] = vmlaq_n_s32(sum[0], vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(left))), weight);
        sum[1] = vmlaq_n_s32(sum[1], vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(left))), weight);
        sum[2] = vmlaq_n_s32(sum[2], vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(right))), weight);
        sum[3] = vmlaq_n_s32(sum[3], vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(right))), weight);
    }
    return vcombine_u8(narrow(sum[0], sum[1]), narrow(sum[2], sum[3]));
}

static void down(const ts_resampling *axis, int output, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, int bytes)
{
    const ts_tap_pair *pairs = axis->pairs + (ptrdiff_t)output * axis->stride;
    in += axis->first[output] * in_stride;
    for (int i = 0; i < bytes; i += DOWN_BYTES) {
        uint8_t result[DOWN_BYTES];
        vst1q_u8(result, column(pairs, axis->taps[output], in + i, in_stride));
        memcpy(out + i, result, (size_t)(bytes - i < DOWN_BYTES ? bytes - i : DOWN_BYTES));
    }
}

const ts_kernel ts_resample_neon = {"resample_neon", TS_RESAMPLING, TS_U8, TS_CPU_NEON, .resample = {across, down}};
