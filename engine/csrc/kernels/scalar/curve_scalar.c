/* Plain C: for machines without a path of their own, and the tables of u8 values. */
#include "kernels/table.h"

#include <math.h>
#include <string.h>

static float line(float x, float slope, float offset)
{
    const float y = slope * x + offset;
    return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
}

static float curve_of(const ts_curve_row *row, float x)
{
    switch (row->kind) {
    case TS_SIGMOID: return 1.0f / (1.0f + expf(-x));
    case TS_SWISH: return x / (1.0f + expf(-x));
    case TS_HARD_SWISH: return line(x, row->slope, row->offset) * x;
    default: return line(x, row->slope, row->offset);
    }
}

static void curve_f32(const ts_curve_row *row, const uint8_t *in, uint8_t *out, int pixels)
{
    for (int pixel = 0; pixel < pixels; pixel++, in += row->in_step, out += row->out_step)
        for (int i = 0; i < TS_GROUP; i++) {
            float x;
            memcpy(&x, in + 4 * i, sizeof x);
            x = curve_of(row, x);
            memcpy(out + 4 * i, &x, sizeof x);
        }
}

const ts_kernel ts_curve_f32_scalar = {"curve_f32_scalar", TS_CURVE, TS_F32, 0, .curve = curve_f32};
