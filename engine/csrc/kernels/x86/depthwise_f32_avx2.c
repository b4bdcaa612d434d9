/* Depthwise fp32 with AVX2 and FMA. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

typedef __m256 acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm256_loadu_ps((const float *)bias + channel);
}

TS_INLINE acc_t load_weights(const char *source, int half)
{
    return _mm256_load_ps((const float *)(const void *)source + 8 * half);
}

TS_INLINE acc_t load_pixel(const uint8_t *source, int half)
{
    return _mm256_loadu_ps((const float *)(const void *)source + 8 * half);
}

TS_INLINE acc_t dot(acc_t acc, acc_t x, acc_t weights)
{
    return _mm256_fmadd_ps(x, weights, acc);
}

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    (void)scale;
    return acc;
}

#include "depthwise_avx2.inc"

const ts_kernel ts_depthwise_f32_avx2 = {
    "depthwise_f32_6_avx2", TS_DEPTHWISE, TS_F32, TS_CPU_AVX2,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile},
};
