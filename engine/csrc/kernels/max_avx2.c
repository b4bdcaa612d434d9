/* Sixteen channels are one xmm register of bytes or two ymm registers of floats. */
#include "../cpu.h"
#include "../pool_kernels.h"

#include <immintrin.h>

/* Bytes compare like the values they stand for, whatever scale and zero point. */
static void max_u8(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += 16) {
        __m128i best = _mm_loadu_si128((const __m128i *)(const void *)(input + taps[0]));
        for (int t = 1; t < tap_count; t++)
            best = _mm_max_epu8(best, _mm_loadu_si128((const __m128i *)(const void *)(input + taps[t])));
        _mm_storeu_si128((__m128i *)(void *)output, best);
    }
}

static void max_f32(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += 64) {
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

const ts_max_kernel ts_max_u8_avx2 = {"max_u8_avx2", TS_CPU_AVX2, TS_U8, max_u8};
const ts_max_kernel ts_max_f32_avx2 = {"max_f32_avx2", TS_CPU_AVX2, TS_F32, max_f32};
