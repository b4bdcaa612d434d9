/* One pixel of sixteen channels at a time, as two registers of floats. */
#include "kernels/table.h"

#include <immintrin.h>

static __m256 real(const uint8_t *source, __m256i zero)
{
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)source));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(wide, zero));
}

/* Not-a-number becomes 0, as in the scalar kernel. */
static void product_u8(const ts_product *p, const uint8_t *a, const uint8_t *b, const float *factor, uint8_t *out, int pixels)
{
    const __m256i a_zero = _mm256_set1_epi32(p->a_zero), b_zero = _mm256_set1_epi32(p->b_zero);
    const __m256 scale = _mm256_set1_ps(p->scale), out_zero = _mm256_set1_ps((float)p->out_zero), high = _mm256_set1_ps(255.0f);
    __m256 right[2];
    for (int h = 0; factor && h < 2; h++)
        right[h] = _mm256_loadu_ps(factor + 8 * h);
    for (int pixel = 0; pixel < pixels; pixel++, a += p->a_step, out += p->out_step) {
        __m256i half[2];
        for (int h = 0; h < 2; h++) {
            const __m256 by = factor ? right[h] : _mm256_mul_ps(real(b + pixel * p->b_step + 8 * h, b_zero), scale);
            const __m256 product = _mm256_mul_ps(real(a + 8 * h, a_zero), by);
            const __m256 rounded = _mm256_round_ps(product, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            const __m256 shifted = _mm256_add_ps(rounded, out_zero);
            half[h] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(shifted, _mm256_setzero_ps()), high));
        }
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(half[0], half[1]), 0xd8);
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)out, bytes);
    }
}

static void product_f32(const ts_product *p, const uint8_t *a, const uint8_t *b, const float *factor, uint8_t *out, int pixels)
{
    const __m256 scale = _mm256_set1_ps(p->scale);
    for (int pixel = 0; pixel < pixels; pixel++, a += p->a_step, out += p->out_step)
        for (int h = 0; h < 2; h++) {
            const __m256 left = _mm256_loadu_ps((const float *)(const void *)a + 8 * h);
            const __m256 right = factor ? _mm256_loadu_ps(factor + 8 * h)
                                        : _mm256_mul_ps(_mm256_loadu_ps((const float *)(const void *)(b + pixel * p->b_step) + 8 * h), scale);
            _mm256_storeu_ps((float *)(void *)out + 8 * h, _mm256_mul_ps(left, right));
        }
}

const ts_kernel ts_product_u8_avx2 = {"product_u8_avx2", TS_PRODUCT, TS_U8, TS_CPU_AVX2, .product = product_u8};
const ts_kernel ts_product_f32_avx2 = {"product_f32_avx2", TS_PRODUCT, TS_F32, TS_CPU_AVX2, .product = product_f32};
