/* Sixteen channels are one xmm register of bytes or two ymm registers of floats. */
#include "kernels/table.h"

#include <immintrin.h>

/* Bytes compare like the values they stand for, whatever scale and zero point. */
static void max_u8(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
        __m128i best = _mm_loadu_si128((const __m128i *)(const void *)(input + taps[0]));
        for (int t = 1; t < tap_count; t++)
            best = _mm_max_epu8(best, _mm_loadu_si128((const __m128i *)(const void *)(input + taps[t])));
        _mm_storeu_si128((__m128i *)(void *)output, best);
    }
}

static void max_f32(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
        const float *x = (const float *)(const void *)(input + taps[0]);
        __m256 low = _mm256_loadu_ps(x), high = _mm256_loadu_ps(x + 8);
        for (int t = 1; t < tap_count; t++) {
            x = (const float *)(const void *)(input + taps[t]);
            low = _mm256_max_ps(low, _mm256_loadu_ps(x));
            high = _mm256_max_ps(high, _mm256_loadu_ps(x + 8));
        }
        _mm256_storeu_ps((float *)(void *)output, low);
        _mm256_storeu_ps((float *)(void *)output + 8, high);
    }
}

/* The even and the odd channels of sixteen, as floats. */
static void widen_bf16(const uint8_t *input, __m256 *even, __m256 *odd)
{
    const __m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)input);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
}

static void max_bf16(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
        __m256 even, odd, x, y;
        widen_bf16(input + taps[0], &even, &odd);
        for (int t = 1; t < tap_count; t++) {
            widen_bf16(input + taps[t], &x, &y);
            even = _mm256_max_ps(even, x);
            odd = _mm256_max_ps(odd, y);
        }
        const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(even), 16);
        _mm256_storeu_si256((__m256i *)(void *)output, _mm256_or_si256(low, _mm256_castps_si256(odd)));
    }
}

const ts_kernel ts_max_u8_avx2 = {"max_u8_avx2", TS_MAXIMUM, TS_U8, TS_CPU_AVX2, .maximum = max_u8};
const ts_kernel ts_max_f32_avx2 = {"max_f32_avx2", TS_MAXIMUM, TS_F32, TS_CPU_AVX2, .maximum = max_f32};
const ts_kernel ts_max_bf16_avx2 = {"max_bf16_avx2", TS_MAXIMUM, TS_BF16, TS_CPU_AVX2, .maximum = max_bf16};
