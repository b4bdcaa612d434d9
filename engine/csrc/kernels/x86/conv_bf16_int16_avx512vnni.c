/*
 * bfloat16 convolutions on AVX-512 VNNI as whole numbers of 16 bits (bf16_int16.h): vpdpwssd multiplies twice as many values
 * as an FMA. The same sums in the same order as on AVX2.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>
#include <math.h>

enum { SPAN_ENTRIES = TS_INT16_SPAN * 2 / TS_STEP_BYTES };

typedef __m512i acc_t;

TS_INLINE acc_t dot(acc_t acc, __m512i x, __m512i weights)
{
    return _mm512_dpwssd_epi32(acc, x, weights);
}

#include "to_bf16_avx512.inc"

#include "epilogue_avx512.inc"
#include "products_avx512.inc"

TS_INLINE void tile(const ts_tile *t, const int M, const int N, const ptrdiff_t step, const int split)
{
    __m512 sum[TS_MAX_GROUPS][TS_MAX_PIXELS];
    TS_UNROLL
    for (int n = 0; n < N; n++)
        TS_UNROLL
        for (int m = 0; m < M; m++)
            sum[n][m] = _mm512_setzero_ps();
    const char *weights = t->weights;
    const int32_t *offset = t->offsets, *end = offset + t->entries;
    while (offset < end) {
        TS_STORED(sum); /* or it would compete with the accumulators for registers */
        acc_t acc[TS_MAX_GROUPS][TS_MAX_PIXELS];
        const int32_t *stop = end - offset > SPAN_ENTRIES ? offset + SPAN_ENTRIES : end;
        TS_UNROLL
        for (int n = 0; n < N; n++)
            TS_UNROLL
            for (int m = 0; m < M; m++) {
                acc[n][m] = _mm512_setzero_si512();
                TS_PIN(acc[n][m]);
            }
        multiply(t, acc, offset, stop, weights, M, N, step, split);
        weights += (stop - offset) * 2 * N * 64;
        offset = stop;
        TS_UNROLL
        for (int n = 0; n < N; n++)
            TS_UNROLL
            for (int m = 0; m < M; m++) {
                TS_PIN(acc[n][m]);
                sum[n][m] = _mm512_add_ps(sum[n][m], _mm512_cvtepi32_ps(acc[n][m]));
            }
    }
    TS_UNROLL
    for (int n = 0; n < N; n++) {
        if (n >= t->groups)
            break;
        const size_t channel = t->channel + TS_GROUP * (size_t)n;
        const __m512 unit = _mm512_loadu_ps(t->epilogue->scale + channel);
        const __m512 scale[2] = {_mm512_mul_ps(unit, _mm512_set1_ps(t->factor[0])), _mm512_mul_ps(unit, _mm512_set1_ps(t->factor[1]))};
        const __m512 bias = _mm512_loadu_ps((const float *)t->epilogue->bias + channel);
        TS_UNROLL
        for (int m = 0; m < M; m++)
            sum[n][m] = _mm512_fmadd_ps(sum[n][m], scale[m >= split], bias);
        finish_values(t, n, sum[n], M, split, 0);
    }
}

#define CHANNEL_BYTES 2
#include "tiles_14x2.inc"

/* The bits of the largest magnitude: those of not-a-number exceed infinity's, and those exceed all others. */
static uint16_t largest_magnitude(const uint8_t *values, size_t count)
{
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    __m512i largest = _mm512_setzero_si512();
    size_t i = 0;
    for (; i + 32 <= count; i += 32)
        largest = _mm512_max_epu16(largest, _mm512_and_si512(_mm512_loadu_si512(values + 2 * i), magnitude));
    uint16_t lanes[32], best = 0;
    _mm512_storeu_si512(lanes, largest);
    for (int lane = 0; lane < 32; lane++)
        best = lanes[lane] > best ? lanes[lane] : best;
    for (; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, values + 2 * i, sizeof bits);
        bits &= 0x7fff;
        best = bits > best ? bits : best;
    }
    return best;
}

static float real(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

TS_INLINE __m256i rounded(__m256i halves, __m512 per_unit)
{
    const __m512 value = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    return _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(value, per_unit)));
}

static float quantise(const uint8_t *values, size_t count, int16_t *out)
{
    const float largest = real(largest_magnitude(values, count));
    const float per_unit = TS_INT16_LIMIT / largest;
    /* Not finite: so must the outputs be. All zero, or too small to be told from it: so are the whole numbers. */
    if (!isfinite(largest) || !isfinite(per_unit)) {
        memset(out, 0, count * sizeof *out);
        return isfinite(largest) ? 0.0f : NAN;
    }
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)(values + 2 * i));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), rounded(halves, _mm512_set1_ps(per_unit)));
    }
    for (; i < count; i++) {
        uint16_t half;
        memcpy(&half, values + 2 * i, sizeof half);
        out[i] = (int16_t)_mm_cvtss_si32(_mm_set_ss(real(half) * per_unit));
    }
    return largest / TS_INT16_LIMIT;
}

const ts_kernel ts_conv_bf16_int16_avx512vnni = {
    "bf16_int16_14x2_avx512vnni", TS_INT16, TS_BF16, TS_CPU_AVX2 | TS_CPU_AVX512 | TS_CPU_AVX512VNNI,
    .int16 = {.quantise = quantise,
              .conv = {.block = TS_GROUP, .pixels = TILE_PIXELS, .groups = TILE_GROUPS, .select = select_tile}},
};
