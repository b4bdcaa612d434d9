/* Products and curves: every kernel of this machine against plain C. Products of bytes are equal to the bit. */
#include "check.h"
#include "kernels/table.h"

#include <math.h>
#include <string.h>

enum { PIXELS = 37, STEP = 3 * TS_GROUP, BYTES = 4 * PIXELS * STEP };

static void fill_floats(random_source *random, uint8_t *bytes)
{
    for (int i = 0; i < BYTES / 4; i++) {
        const float value = (float)random_between(random, -100000, 100000) / (float)(1 << random_between(random, 0, 20));
        memcpy(bytes + 4 * i, &value, sizeof value);
    }
}

static void fill(random_source *random, ts_dtype dtype, uint8_t *bytes)
{
    for (int i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)next_random(random);
    if (dtype == TS_F32)
        fill_floats(random, bytes);
}

static void compare_product(random_source *random, const ts_kernel *kernel)
{
    static uint8_t a[BYTES], b[BYTES], expected[BYTES], actual[BYTES];
    const ptrdiff_t step = STEP * ts_element_bytes(kernel->dtype);
    float factor[TS_GROUP];
    const ts_product product = {.scale = (float)random_between(random, 1, 1000) / 50000.0f, .a_zero = random_between(random, 0, 255),
                                .b_zero = random_between(random, 0, 255), .out_zero = random_between(random, 0, 255),
                                .a_step = step, .b_step = step / 3, .out_step = step};
    fill(random, kernel->dtype, a);
    fill(random, kernel->dtype, b);
    for (int i = 0; i < TS_GROUP; i++)
        factor[i] = i ? (float)random_between(random, -1000, 1000) / 300.0f : NAN;
    const float *gates = random_between(random, 0, 1) ? factor : NULL;
    memset(expected, 0, sizeof expected);
    memset(actual, 0, sizeof actual);
    ts_find_kernel(TS_PRODUCT, kernel->dtype, 0)->product(&product, a, b, gates, expected, PIXELS);
    kernel->product(&product, a, b, gates, actual, PIXELS);
    for (int i = 0; i < BYTES; i += ts_element_bytes(kernel->dtype)) {
        float want = expected[i], have = actual[i];
        if (kernel->dtype == TS_F32) {
            memcpy(&want, expected + i, sizeof want);
            memcpy(&have, actual + i, sizeof have);
        }
        CHECK(want == have || (isnan(want) && isnan(have)), "%s, byte %d: %g instead of %g", kernel->name, i, (double)have, (double)want);
    }
}

static void compare_curve(random_source *random, const ts_kernel *kernel)
{
    static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 88.0f, -88.0f, 1e30f};
    const ts_curve_row curve = {.kind = (ts_curve)random_between(random, TS_SIGMOID, TS_SWISH),
                                .slope = (float)random_between(random, 1, 100) / 100.0f,
                                .offset = (float)random_between(random, -100, 100) / 100.0f};
    float in[TS_GROUP], expected[TS_GROUP], actual[TS_GROUP];
    for (int i = 0; i < TS_GROUP; i++)
        in[i] = i < 8 ? special[i] : (float)random_between(random, -20000, 20000) / 1000.0f;
    ts_find_kernel(TS_CURVE, TS_F32, 0)->curve(&curve, (const uint8_t *)in, (uint8_t *)expected, 1);
    kernel->curve(&curve, (const uint8_t *)in, (uint8_t *)actual, 1);
    for (int i = 0; i < TS_GROUP; i++) {
        if (curve.kind == TS_SWISH && isinf(in[i])) /* nothing times infinity: what comes depends on where the exponent ends */
            continue;
        const float difference = fabsf(expected[i] - actual[i]);
        const int same = expected[i] == actual[i] || (isnan(expected[i]) && isnan(actual[i]));
        CHECK(same || difference <= 1e-6f * (1.0f + fabsf(expected[i])), "%s, curve %d of %g: %g instead of %g", kernel->name, (int)curve.kind,
              (double)in[i], (double)actual[i], (double)expected[i]);
    }
}

int main(void)
{
    random_source random = {20261130};
    const uint32_t features = ts_cpu_detect();
    int compared = 0;
    for (const ts_kernel *const *row = ts_kernels; *row; row++) {
        if (((*row)->features & ~features) != 0 || ((*row)->kind != TS_PRODUCT && (*row)->kind != TS_CURVE))
            continue;
        for (int round = 0; round < 300; round++)
            ((*row)->kind == TS_PRODUCT ? compare_product : compare_curve)(&random, *row);
        compared++;
    }
    printf("%d kernels of products and curves compared\n", compared);
    return 0;
}
