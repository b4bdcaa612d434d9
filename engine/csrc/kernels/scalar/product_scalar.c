/* Plain C: for machines without a path of their own. */
#include "kernels/table.h"

#include <math.h>
#include <string.h>

static void product_u8(const ts_product *p, const uint8_t *a, const uint8_t *b, const float *factor, uint8_t *out, int pixels)
{
    for (int pixel = 0; pixel < pixels; pixel++, a += p->a_step, out += p->out_step)
        for (int i = 0; i < TS_GROUP; i++) {
            const float right = factor ? factor[i] : (float)(b[pixel * p->b_step + i] - p->b_zero) * p->scale;
            const float shifted = rintf((float)(a[i] - p->a_zero) * right) + (float)p->out_zero;
            out[i] = (uint8_t)(shifted >= 0.0f ? (shifted <= 255.0f ? shifted : 255.0f) : 0.0f);
        }
}

static void product_f32(const ts_product *p, const uint8_t *a, const uint8_t *b, const float *factor, uint8_t *out, int pixels)
{
    for (int pixel = 0; pixel < pixels; pixel++, a += p->a_step, out += p->out_step)
        for (int i = 0; i < TS_GROUP; i++) {
            float left, right;
            memcpy(&left, a + 4 * i, sizeof left);
            if (factor) {
                right = factor[i];
            } else {
                memcpy(&right, b + pixel * p->b_step + 4 * i, sizeof right);
                right *= p->scale;
            }
            left *= right;
            memcpy(out + 4 * i, &left, sizeof left);
        }
}

const ts_kernel ts_product_u8_scalar = {"product_u8_scalar", TS_PRODUCT, TS_U8, 0, .product = product_u8};
const ts_kernel ts_product_f32_scalar = {"product_f32_scalar", TS_PRODUCT, TS_F32, 0, .product = product_f32};
