/* Eight values at a time. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

/* 2^x for x within [-126, 126]: a whole power times a polynomial, 1e-7 of it off at most. Not-a-number stays. */
TS_INLINE __m256 power_of_two(__m256 x)
{
    static const float terms[] = {1.5403530e-4f, 1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f};
    const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 rest = _mm256_sub_ps(x, whole);
    __m256 sum = _mm256_set1_ps(terms[0]);
    TS_UNROLL
    for (int i = 1; i < 7; i++)
        sum = _mm256_fmadd_ps(sum, rest, _mm256_set1_ps(terms[i]));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(power));
}

TS_INLINE __m256 clamp(__m256 x, float low, float high)
{
    /* In this order of operands not-a-number stays. */
    return _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), x));
}

TS_INLINE __m256 curve_of(const ts_curve_row *row, __m256 x, const ts_curve kind)
{
    if (kind == TS_SIGMOID || kind == TS_SWISH) {
        const __m256 one = _mm256_set1_ps(1.0f);
        const __m256 power = power_of_two(clamp(_mm256_mul_ps(x, _mm256_set1_ps(-1.442695041f)), -126.0f, 126.0f));
        return _mm256_div_ps(kind == TS_SWISH ? x : one, _mm256_add_ps(one, power));
    }
    const __m256 line = clamp(_mm256_fmadd_ps(x, _mm256_set1_ps(row->slope), _mm256_set1_ps(row->offset)), 0.0f, 1.0f);
    return kind == TS_HARD_SWISH ? _mm256_mul_ps(line, x) : line;
}

/* `kind` is a constant. */
TS_INLINE void curve_row(const ts_curve_row *row, const uint8_t *in, uint8_t *out, int pixels, const ts_curve kind)
{
    for (int pixel = 0; pixel < pixels; pixel++, in += row->in_step, out += row->out_step)
        for (int h = 0; h < 2; h++) {
            const __m256 x = _mm256_loadu_ps((const float *)(const void *)in + 8 * h);
            _mm256_storeu_ps((float *)(void *)out + 8 * h, curve_of(row, x, kind));
        }
}

static void curve_f32(const ts_curve_row *row, const uint8_t *in, uint8_t *out, int pixels)
{
    switch (row->kind) {
    case TS_SIGMOID: curve_row(row, in, out, pixels, TS_SIGMOID); break;
    case TS_SWISH: curve_row(row, in, out, pixels, TS_SWISH); break;
    case TS_HARD_SWISH: curve_row(row, in, out, pixels, TS_HARD_SWISH); break;
    default: curve_row(row, in, out, pixels, TS_HARD_SIGMOID); break;
    }
}

const ts_kernel ts_curve_f32_avx2 = {"curve_f32_avx2", TS_CURVE, TS_F32, TS_CPU_AVX2, .curve = curve_f32};
