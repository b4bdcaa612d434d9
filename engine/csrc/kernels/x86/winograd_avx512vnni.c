/*
 * Winograd's F(4x4, 3x3) with the 512-bit vpdpwssd: half the products of vpdpbusd, of which it needs a quarter. Zen 4 and 5
 * have the bfloat16 instructions that the table asks for, and units enough for the transforms. Intel's cores add 512 bits on
 * the two ports that multiply, so there both algorithms should take as long.
 */
#include "kernels/unroll.h"

#include <immintrin.h>

#define WIDTH 64
#include "winograd_lines.inc"

typedef __m512i acc_t;

TS_INLINE __m512 to_float(acc_t acc, __m512 scale)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
}

#include "to_bf16_avx512.inc"
#include "finish_avx512.inc"

TS_INLINE words load_words(const uint8_t *at, ptrdiff_t next)
{
    const __m128i first = _mm_loadu_si128((const __m128i *)(const void *)at);
    const __m128i second = _mm_loadu_si128((const __m128i *)(const void *)(at + next));
    const __m512i pixels = _mm512_cvtepu8_epi16(_mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1));
    words result;
    memcpy(&result, &pixels, sizeof result);
    return result;
}

TS_INLINE void finish_row(const ts_tile *tile, sums (*acc)[1], const int M)
{
    acc_t values[OUT];
    memcpy(values, acc, (size_t)M * sizeof *values);
    if (tile->epilogue->plain && tile->pixels == M)
        finish_group(tile, 0, values, M, M, 1);
    else
        finish_group(tile, 0, values, M, M, 0);
}

enum { MOST = 16 };

TS_INLINE void multiply_tiles(const int16_t *input, size_t stride, const int16_t *weights, int pairs, int32_t *products, const int M)
{
    __m512i acc[MOST];
    TS_UNROLL
    for (int m = 0; m < M; m++)
        acc[m] = _mm512_setzero_si512();
    for (int k = 0; k < pairs; k++, weights += 2 * TS_GROUP, input += 2) {
        const __m512i w = _mm512_load_si512(weights);
        _mm_prefetch((const char *)weights + TS_WEIGHTS_AHEAD, _MM_HINT_T0);
        TS_UNROLL
        for (int m = 0; m < M; m++) {
            acc[m] = _mm512_dpwssd_epi32(acc[m], w, _mm512_set1_epi32(load_dword((const uint8_t *)(input + (size_t)m * stride))));
            TS_PIN(acc[m]);
        }
    }
    TS_UNROLL
    for (int m = 0; m < M; m++)
        _mm512_storeu_si512(products + m * TS_GROUP, acc[m]);
}

#define CASE(M) \
    case M: multiply_tiles(input, stride, weights, pairs, products, M); break;

static void multiply(const int16_t *input, size_t stride, const int16_t *weights, int pairs, int tiles, int32_t *products)
{
    while (tiles > 0) {
        const int count = even_share(tiles, MOST);
        switch (count) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
            CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
        }
        tiles -= count;
        input += (size_t)count * stride;
        products += count * TS_GROUP;
    }
}

#include "winograd_tiles.inc"

const ts_kernel ts_winograd_avx512vnni = {
    "u8s8_winograd_avx512vnni", TS_WINOGRAD, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI | TS_CPU_AVX512BF16,
    .winograd = WINOGRAD_KERNEL(6 << 20, 75),
};
