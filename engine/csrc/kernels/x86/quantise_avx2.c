/* One pixel of sixteen channels at a time, as two registers of floats. */
#include "kernels/table.h"

#include <immintrin.h>

static void quantise_bf16(const ts_quantisation *p, const uint8_t *in, uint8_t *out, int pixels)
{
    const __m256 scale = _mm256_set1_ps(p->scale), zero = _mm256_set1_ps((float)p->zero);
    const __m256 low = _mm256_set1_ps(p->low), high = _mm256_set1_ps(p->high);
    for (int pixel = 0; pixel < pixels; pixel++, in += p->in_step, out += p->out_step) {
        __m256i half[2];
        for (int h = 0; h < 2; h++) {
            const __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)(in + 16 * h));
            const __m256 value = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
            const __m256 rounded =
                _mm256_round_ps(_mm256_mul_ps(value, scale), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            /* In this order of operands not-a-number becomes the lowest value. */
            const __m256 clamped = _mm256_min_ps(_mm256_max_ps(_mm256_add_ps(rounded, zero), low), high);
            half[h] = _mm256_cvtps_epi32(clamped);
        }
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(half[0], half[1]), 0xd8);
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)out, bytes);
    }
}

const ts_kernel ts_quantise_bf16_avx2 = {"quantise_bf16_avx2", TS_QUANTISATION, TS_BF16, TS_CPU_AVX2, .quantisation = quantise_bf16};
