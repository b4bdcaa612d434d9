/* Depthwise u8 by s8: a byte of each channel in a dword, whose upper word is zero, so that vpmaddwd makes one product a lane. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

typedef __m256i acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)((const int32_t *)bias + channel));
}

TS_INLINE acc_t load_weights(const char *source, int half)
{
    return _mm256_load_si256((const __m256i *)(const void *)source + half);
}

TS_INLINE acc_t load_pixel(const uint8_t *source, int half)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(source + 8 * half)));
}

TS_INLINE acc_t dot(acc_t acc, acc_t x, acc_t weights)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(x, weights));
}

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale);
}

#include "depthwise_avx2.inc"

const ts_kernel ts_depthwise_u8s8_avx2 = {
    "depthwise_u8s8_6_avx2", TS_DEPTHWISE, TS_U8, TS_CPU_AVX2,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile},
};
