/* One pixel of sixteen channels at a time, as two registers of floats. */
#include "kernels/table.h"

#include <immintrin.h>

/* Eight whole numbers within [low, high]. */
static inline __m256i quantised(const ts_quantisation *p, __m256 value)
{
    const __m256 product = _mm256_mul_ps(value, _mm256_set1_ps(p->scale));
    const __m256 rounded = _mm256_round_ps(product, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 shifted = _mm256_add_ps(rounded, _mm256_set1_ps((float)p->zero));
    /* In this order of operands not-a-number becomes the lowest value. */
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(shifted, _mm256_set1_ps(p->low)), _mm256_set1_ps(p->high)));
}

static inline void store_pixel(uint8_t *out, __m256i a, __m256i b)
{
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)out, bytes);
}

static inline __m256 load_bf16(const uint8_t *in)
{
    const __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)in);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

static void quantise_bf16(const ts_quantisation *p, const uint8_t *in, uint8_t *out, int pixels)
{
    for (int pixel = 0; pixel < pixels; pixel++, in += p->in_step, out += p->out_step)
        store_pixel(out, quantised(p, load_bf16(in)), quantised(p, load_bf16(in + 16)));
}

static void quantise_f32(const ts_quantisation *p, const uint8_t *in, uint8_t *out, int pixels)
{
    for (int pixel = 0; pixel < pixels; pixel++, in += p->in_step, out += p->out_step) {
        const float *value = (const float *)(const void *)in;
        store_pixel(out, quantised(p, _mm256_loadu_ps(value)), quantised(p, _mm256_loadu_ps(value + 8)));
    }
}

const ts_kernel ts_quantise_bf16_avx2 = {"quantise_bf16_avx2", TS_QUANTISATION, TS_BF16, TS_CPU_AVX2, .quantisation = quantise_bf16};
const ts_kernel ts_quantise_f32_avx2 = {"quantise_f32_avx2", TS_QUANTISATION, TS_F32, TS_CPU_AVX2, .quantisation = quantise_f32};
