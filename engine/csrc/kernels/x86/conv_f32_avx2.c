/* fp32 with AVX2 and FMA: 6 pixels by 16 channels in 12 of the 16 registers. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { WEIGHT_BYTES = 64, PARTS = 1 };

typedef __m256 acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm256_loadu_ps((const float *)bias + channel);
}

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    (void)scale;
    return acc;
}

TS_INLINE acc_t pixel_part(const uint8_t *dword, int part)
{
    (void)part;
    return _mm256_castsi256_ps(_mm256_set1_epi32(load_dword(dword)));
}

TS_INLINE acc_t weight_part(const char *weights, int part, int half)
{
    (void)part;
    return _mm256_load_ps((const float *)(const void *)weights + 8 * half);
}

TS_INLINE acc_t multiply(acc_t acc, acc_t x, acc_t weights)
{
    return _mm256_fmadd_ps(x, weights, acc);
}

#include "tile_avx2.inc"

const ts_kernel ts_conv_f32_avx2 = {
    "f32_6x1_avx2", TS_CONV, TS_F32, TS_CPU_AVX2,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile, .join = join_tile},
};
