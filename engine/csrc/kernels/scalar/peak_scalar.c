/* The compiler's best on plain C: the peak of machines without any path of their own. */
#include "kernels/table.h"

enum { CHAINS = 16 };

static float run_u8s8(int64_t iterations)
{
    volatile int32_t start = 3;
    int32_t sum[CHAINS] = {0}, x = start;
    for (int64_t i = 0; i < iterations; i++)
        for (int c = 0; c < CHAINS; c++)
            sum[c] = (int32_t)((uint32_t)sum[c] * (uint32_t)x + (uint32_t)c);
    int32_t total = 0;
    for (int c = 0; c < CHAINS; c++)
        total ^= sum[c];
    return (float)total;
}

static float run_f32(int64_t iterations)
{
    volatile float start = 0.5f;
    float sum[CHAINS] = {0}, x = start;
    for (int64_t i = 0; i < iterations; i++)
        for (int c = 0; c < CHAINS; c++)
            sum[c] = sum[c] * x + 1.0f;
    float total = 0;
    for (int c = 0; c < CHAINS; c++)
        total += sum[c];
    return total;
}

const ts_kernel ts_peak_u8s8_scalar = {"u8s8_scalar", TS_PEAK, TS_U8, 0, .peak = {CHAINS, run_u8s8}};
const ts_kernel ts_peak_f32_scalar = {"f32_scalar", TS_PEAK, TS_F32, 0, .peak = {CHAINS, run_f32}};
const ts_kernel ts_peak_bf16_scalar = {"bf16_scalar", TS_PEAK, TS_BF16, 0, .peak = {CHAINS, run_f32}};
