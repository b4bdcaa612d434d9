/* Sixteen channels are one register of floats, or half a register of bfloat16 that is widened for the comparison. */
#include "kernels/table.h"

#include <immintrin.h>

static void max_f32(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
        __m512 best = _mm512_loadu_ps((const float *)(const void *)(input + taps[0]));
        for (int t = 1; t < tap_count; t++)
            best = _mm512_max_ps(best, _mm512_loadu_ps((const float *)(const void *)(input + taps[t])));
        _mm512_storeu_ps((float *)(void *)output, best);
    }
}

static inline __m512 load_bf16(const uint8_t *source)
{
    const __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)source);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static void max_bf16(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                   ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
        __m512 best = load_bf16(input + taps[0]);
        for (int t = 1; t < tap_count; t++)
            best = _mm512_max_ps(best, load_bf16(input + taps[t]));
        /* The maximum is one of the values, so its lower half is zero and cutting it off rounds nothing. */
        const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(best), 16);
        _mm256_storeu_si256((__m256i *)(void *)output, _mm512_cvtepi32_epi16(bits));
    }
}

/* Blocks of 64 channels are a register of bytes. */
static void max_u8_wide(const uint8_t *input, ptrdiff_t step, const int32_t *taps, int tap_count, uint8_t *output,
                        ptrdiff_t output_step, int pixels)
{
    for (int p = 0; p < pixels; p++, input += step, output += output_step) {
        __m512i best = _mm512_loadu_si512(input + taps[0]);
        for (int t = 1; t < tap_count; t++)
            best = _mm512_max_epu8(best, _mm512_loadu_si512(input + taps[t]));
        _mm512_storeu_si512(output, best);
    }
}

const ts_kernel ts_max_u8_wide_avx512 = {"max_u8_wide_avx512", TS_MAXIMUM_WIDE, TS_U8, TS_CPU_AVX512, .maximum = max_u8_wide};
const ts_kernel ts_max_f32_avx512 = {"max_f32_avx512", TS_MAXIMUM, TS_F32, TS_CPU_AVX512, .maximum = max_f32};
const ts_kernel ts_max_bf16_avx512 = {"max_bf16_avx512", TS_MAXIMUM, TS_BF16, TS_CPU_AVX512, .maximum = max_bf16};
