/*
 * u8 activations, s8 weights on AVX2, exactly. vpmaddubsw would saturate (2 * 255 * 127 exceeds 16 bits), so both
 * sides are widened to 16 bits and vpmaddwd adds pairs in 32: the same sums as VNNI, at about a quarter of its speed.
 */
#include "../kernels.h"
#include "unroll.h"

#include <immintrin.h>

enum { WEIGHT_BYTES = 128 }; /* [2 channel pairs][16 lanes][2] s16 */

typedef __m256i acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)((const int32_t *)bias + channel));
}

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale);
}

TS_INLINE void multiply(acc_t *acc, int32_t dword, const char *weights)
{
    const __m256i x = _mm256_set1_epi32(dword);
    const __m256i even = _mm256_set1_epi32((int)0x80018000u), odd = _mm256_set1_epi32((int)0x80038002u);
    const __m256i *w = (const __m256i *)(const void *)weights;
    const __m256i x01 = _mm256_shuffle_epi8(x, even), x23 = _mm256_shuffle_epi8(x, odd);
    for (int h = 0; h < 2; h++) {
        acc[h] = _mm256_add_epi32(acc[h], _mm256_madd_epi16(x01, _mm256_load_si256(w + h)));
        acc[h] = _mm256_add_epi32(acc[h], _mm256_madd_epi16(x23, _mm256_load_si256(w + 2 + h)));
    }
}

#include "tile_avx2.inc"

static void tile_4(const ts_tile *t) { tile(t, 4); }
static void tile_1(const ts_tile *t) { tile(t, 1); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixel_step;
    if (split)
        return NULL;
    *capacity = pixels > 1 ? 4 : 1;
    return pixels > 1 ? tile_4 : tile_1;
}

const ts_kernel ts_conv_u8s8_avx2 = {"u8s8_4x1_avx2", TS_CPU_AVX2, TS_U8, 4, 1, TS_PACK_S16, select_tile};
