/* Depthwise bfloat16, multiplied as floats: every product is exact. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

typedef __m512 acc_t;
typedef __m512 vector_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm512_loadu_ps((const float *)bias + channel);
}

TS_INLINE vector_t load_weights(const char *source)
{
    return _mm512_load_ps((const float *)(const void *)source);
}

TS_INLINE vector_t load_pixel(const uint8_t *source)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)source)), 16));
}

TS_INLINE acc_t dot(acc_t acc, vector_t x, vector_t weights)
{
    return _mm512_fmadd_ps(x, weights, acc);
}

TS_INLINE __m512 to_float(acc_t acc, __m512 scale)
{
    (void)scale;
    return acc;
}

#include "to_bf16_avx512.inc"
#include "depthwise_avx512.inc"

#define CHANNEL_BYTES 2
#include "tiles_14x2.inc"

const ts_kernel ts_depthwise_bf16_avx512 = {
    "depthwise_bf16_14_avx512", TS_DEPTHWISE, TS_BF16, TS_CPU_AVX512,
    .conv = {.block = TS_GROUP, .pixels = TILE_PIXELS, .groups = 1, .select = select_tile},
};
