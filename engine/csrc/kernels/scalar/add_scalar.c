/* Plain C: for machines without a path of their own. */
#include "kernels/add_kernels.h"

#include <math.h>

static void add_u8(const ts_add_parameters *p, const uint8_t *a, const uint8_t *b, uint8_t *out, int pixels)
{
    for (int i = 0; i < pixels * TS_GROUP; i++) {
        const float left = (float)(a[i] - p->a_zero) * p->a_scale, right = (float)(b[i] - p->b_zero) * p->b_scale;
        const float shifted = rintf(left + right) + (float)p->out_zero;
        out[i] = (uint8_t)(shifted >= p->low ? (shifted <= p->high ? shifted : p->high) : p->low);
    }
}

const ts_add_kernel ts_add_u8_scalar = {"add_u8_scalar", 0, add_u8};
