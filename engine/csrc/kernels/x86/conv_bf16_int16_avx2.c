/*
 * bfloat16 convolutions on AVX2 as whole numbers of 16 bits (bf16_int16.h): vpmaddwd multiplies twice as many values as an
 * FMA. 6 pixels by 16 channels in 12 of the 16 registers.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>
#include <math.h>

enum { SPAN_ENTRIES = TS_INT16_SPAN * 2 / TS_STEP_BYTES, WEIGHT_BYTES = 64 };

typedef __m256 acc_t;

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    (void)scale; /* applied before the bias, in `tile` */
    return acc;
}

#include "epilogue_avx2.inc"

TS_INLINE void multiply_span(const ts_tile *t, const int32_t *offset, const int32_t *end, const char *weights, __m256i (*acc)[2],
                             const int M)
{
    TS_UNROLL
    for (int m = 0; m < M; m++)
        acc[m][0] = acc[m][1] = _mm256_setzero_si256();
    for (; offset < end; offset++, weights += 2 * WEIGHT_BYTES) {
        const uint8_t *a = t->input[0] + *offset;
        TS_UNROLL
        for (int d = 0; d < 2; d++) {
            const __m256i *w = (const __m256i *)(const void *)(weights + d * WEIGHT_BYTES);
            const __m256i low = _mm256_load_si256(w), high = _mm256_load_si256(w + 1);
            TS_UNROLL
            for (int m = 0; m < M; m++) {
                const __m256i x = _mm256_set1_epi32(load_dword(a + m * t->pixel_step + 4 * d));
                acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(x, low));
                TS_KEEP(acc[m][0]);
                acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(x, high));
                TS_KEEP(acc[m][1]);
            }
        }
    }
}

TS_INLINE void tile(const ts_tile *t, const int M)
{
    acc_t sums[TS_MAX_PIXELS][2];
    TS_UNROLL
    for (int m = 0; m < M; m++)
        sums[m][0] = sums[m][1] = _mm256_setzero_ps();
    const char *weights = t->weights;
    const int32_t *offset = t->offsets, *end = offset + t->entries;
    while (offset < end) {
        __m256i acc[TS_MAX_PIXELS][2];
        const int32_t *stop = end - offset > SPAN_ENTRIES ? offset + SPAN_ENTRIES : end;
        multiply_span(t, offset, stop, weights, acc, M);
        weights += (stop - offset) * 2 * WEIGHT_BYTES;
        offset = stop;
        TS_UNROLL
        for (int m = 0; m < M; m++)
            for (int h = 0; h < 2; h++)
                sums[m][h] = _mm256_add_ps(sums[m][h], _mm256_cvtepi32_ps(acc[m][h]));
    }
    for (int h = 0; h < 2; h++) {
        const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(t->epilogue->scale + t->channel + 8 * h), _mm256_set1_ps(t->factor[0]));
        const __m256 bias = _mm256_loadu_ps((const float *)t->epilogue->bias + t->channel + 8 * h);
        TS_UNROLL
        for (int m = 0; m < M; m++)
            sums[m][h] = _mm256_fmadd_ps(sums[m][h], scale, bias);
    }
    finish_group(t, sums, 0, M, 0);
}

static void tile_1(const ts_tile *t) { tile(t, 1); }
static void tile_2(const ts_tile *t) { tile(t, 2); }
static void tile_3(const ts_tile *t) { tile(t, 3); }
static void tile_4(const ts_tile *t) { tile(t, 4); }
static void tile_5(const ts_tile *t) { tile(t, 5); }
static void tile_6(const ts_tile *t) { tile(t, 6); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    static const ts_tile_fn tiles[] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
    (void)pixel_step;
    if (split)
        return NULL;
    *capacity = even_share(pixels, 6);
    return tiles[*capacity - 1];
}

/* The bits of the largest magnitude: those of not-a-number exceed infinity's, and those exceed all others. */
static uint16_t largest_magnitude(const uint8_t *values, size_t count)
{
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    __m256i largest = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        largest = _mm256_max_epu16(largest, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)(values + 2 * i)), magnitude));
    uint16_t lanes[16], best = 0;
    _mm256_storeu_si256((__m256i *)(void *)lanes, largest);
    for (int lane = 0; lane < 16; lane++)
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

TS_INLINE __m256i rounded(__m128i halves, __m256 per_unit)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(bf16_to_float(halves), per_unit));
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
        const __m128i *source = (const __m128i *)(const void *)(values + 2 * i);
        const __m256i a = rounded(_mm_loadu_si128(source), _mm256_set1_ps(per_unit));
        const __m256i b = rounded(_mm_loadu_si128(source + 1), _mm256_set1_ps(per_unit));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
    }
    for (; i < count; i++) {
        uint16_t half;
        memcpy(&half, values + 2 * i, sizeof half);
        out[i] = (int16_t)_mm_cvtss_si32(_mm_set_ss(real(half) * per_unit));
    }
    return largest / TS_INT16_LIMIT;
}

const ts_kernel ts_conv_bf16_int16_avx2 = {
    "bf16_int16_6x1_avx2", TS_INT16, TS_BF16, TS_CPU_AVX2,
    .int16 = {.quantise = quantise, .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile}},
};
