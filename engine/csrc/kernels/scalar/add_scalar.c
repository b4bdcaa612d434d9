/* Plain C: for machines without a path of their own. */
#include "kernels/table.h"

#include <math.h>

static void add_u8(const ts_addition *p, const uint8_t *a, const uint8_t *b, uint8_t *out, int pixels)
{
    for (int pixel = 0; pixel < pixels; pixel++, a += p->a_step, b += p->b_step, out += p->out_step)
        for (int i = 0; i < TS_GROUP; i++) {
            const float left = (float)(a[i] - p->a_zero) * p->a_scale, right = (float)(b[i] - p->b_zero) * p->b_scale;
            const float shifted = rintf(left + right) + (float)p->out_zero;
            out[i] = (uint8_t)(shifted >= p->low ? (shifted <= p->high ? shifted : p->high) : p->low);
        }
}

const ts_kernel ts_add_u8_scalar = {"add_u8_scalar", TS_ADDITION, TS_U8, 0, .addition = add_u8};
