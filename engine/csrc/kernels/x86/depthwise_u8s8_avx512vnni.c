/* Depthwise u8 by s8: a byte of each channel in a dword, whose upper word is zero, so that vpdpwssd adds one product a lane. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

typedef __m512i acc_t;
typedef __m512i vector_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm512_loadu_si512((const int32_t *)bias + channel);
}

TS_INLINE vector_t load_weights(const char *source)
{
    return _mm512_load_si512(source);
}

TS_INLINE vector_t load_pixel(const uint8_t *source)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)source));
}

TS_INLINE acc_t dot(acc_t acc, vector_t x, vector_t weights)
{
    return _mm512_dpwssd_epi32(acc, x, weights);
}

TS_INLINE __m512 to_float(acc_t acc, __m512 scale)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
}

#include "to_bf16_avx512.inc"
#include "depthwise_avx512.inc"

#define CHANNEL_BYTES 1
#include "tiles_14x2.inc"

const ts_kernel ts_depthwise_u8s8_avx512vnni = {
    "depthwise_u8s8_14_avx512vnni", TS_DEPTHWISE, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI,
    .conv = {.block = TS_GROUP, .pixels = TILE_PIXELS, .groups = 1, .select = select_tile},
};
