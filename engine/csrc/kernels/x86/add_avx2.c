/* One pixel of sixteen channels at a time, as two registers of floats. */
#include "kernels/table.h"

#include <immintrin.h>

static __m256 real(const uint8_t *source, __m256i zero, __m256 scale)
{
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)source));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(wide, zero)), scale);
}

/* Compiled without fused multiply-add: both products are rounded, like in the scalar kernel. */
static void add_u8(const ts_addition *p, const uint8_t *a, const uint8_t *b, uint8_t *out, int pixels)
{
    const __m256i a_zero = _mm256_set1_epi32(p->a_zero), b_zero = _mm256_set1_epi32(p->b_zero);
    const __m256 a_scale = _mm256_set1_ps(p->a_scale), b_scale = _mm256_set1_ps(p->b_scale);
    const __m256 zero = _mm256_set1_ps((float)p->out_zero), low = _mm256_set1_ps(p->low), high = _mm256_set1_ps(p->high);
    for (int pixel = 0; pixel < pixels; pixel++, a += p->a_step, b += p->b_step, out += p->out_step) {
        __m256i half[2];
        for (int h = 0; h < 2; h++) {
            const __m256 sum = _mm256_add_ps(real(a + 8 * h, a_zero, a_scale), real(b + 8 * h, b_zero, b_scale));
            const __m256 rounded = _mm256_round_ps(sum, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            const __m256 shifted = _mm256_add_ps(rounded, zero);
            half[h] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(shifted, low), high));
        }
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(half[0], half[1]), 0xd8);
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)out, bytes);
    }
}

const ts_kernel ts_add_u8_avx2 = {"add_u8_avx2", TS_ADDITION, TS_U8, TS_CPU_AVX2, .addition = add_u8};
