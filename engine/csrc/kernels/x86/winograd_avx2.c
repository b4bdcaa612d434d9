/* Winograd's F(4x4, 3x3) in whole numbers on AVX2: winograd.h says why it is exact. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { OUT = TS_WINOGRAD_OUT, IN = TS_WINOGRAD_IN, INVERSE_OF_9 = 0x38e38e39, LOG_64 = 6 };

typedef __m256i acc_t;

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale);
}

#include "epilogue_avx2.inc"

/* One row or column of B'd: 4 0 -5 0 1 0; 0 -+4 -4 +-1 1 0; 0 -+2 -1 +-2 1 0; 0 4 0 -5 0 1. */
TS_INLINE void spread_4(const __m256i d[IN], __m256i v[IN])
{
    const __m256i even = _mm256_sub_epi16(d[4], _mm256_slli_epi16(d[2], 2));
    const __m256i odd = _mm256_sub_epi16(d[3], _mm256_slli_epi16(d[1], 2));
    const __m256i outer = _mm256_sub_epi16(d[4], d[2]), inner = _mm256_sub_epi16(d[3], d[1]);
    const __m256i twice = _mm256_add_epi16(inner, inner);
    v[0] = _mm256_add_epi16(_mm256_slli_epi16(_mm256_sub_epi16(d[0], d[2]), 2), outer);
    v[1] = _mm256_add_epi16(even, odd);
    v[2] = _mm256_sub_epi16(even, odd);
    v[3] = _mm256_add_epi16(outer, twice);
    v[4] = _mm256_sub_epi16(outer, twice);
    v[5] = _mm256_sub_epi16(_mm256_sub_epi16(d[5], d[3]), _mm256_add_epi16(twice, twice));
}

/* Without the point -2: 4 -2 -4 2 0; 0 -6 -3 3 0; 0 2 -3 1 0; 0 -4 0 4 0; 0 2 -1 -2 1. */
TS_INLINE void spread_3(const __m256i d[IN], __m256i v[IN])
{
    const __m256i even = _mm256_sub_epi16(d[0], d[2]), odd = _mm256_sub_epi16(d[3], d[1]);
    const __m256i twice = _mm256_add_epi16(odd, odd), left = _mm256_sub_epi16(d[1], d[2]);
    const __m256i right = _mm256_sub_epi16(_mm256_sub_epi16(d[3], d[2]), _mm256_add_epi16(d[1], d[1]));
    v[0] = _mm256_add_epi16(_mm256_slli_epi16(even, 2), twice);
    v[1] = _mm256_add_epi16(right, _mm256_add_epi16(right, right));
    v[2] = _mm256_add_epi16(_mm256_sub_epi16(d[3], d[2]), _mm256_add_epi16(left, left));
    v[3] = _mm256_add_epi16(twice, twice);
    v[5] = _mm256_sub_epi16(_mm256_sub_epi16(d[4], d[2]), twice);
}

/* Without 2 and -2: 4 0 -4 0; 0 -3 -3 0; 0 3 -3 0; 0 -1 0 1. */
TS_INLINE void spread_2(const __m256i d[IN], __m256i v[IN])
{
    const __m256i sum = _mm256_add_epi16(d[1], d[2]), difference = _mm256_sub_epi16(d[1], d[2]);
    v[0] = _mm256_slli_epi16(_mm256_sub_epi16(d[0], d[2]), 2);
    v[1] = _mm256_mullo_epi16(sum, _mm256_set1_epi16(-3));
    v[2] = _mm256_add_epi16(difference, _mm256_add_epi16(difference, difference));
    v[5] = _mm256_sub_epi16(d[3], d[1]);
}

TS_INLINE void spread_line(const __m256i d[IN], __m256i v[IN], const int cut)
{
    if (cut == 0)
        spread_4(d, v);
    else if (cut == 1)
        spread_3(d, v);
    else
        spread_2(d, v);
}

TS_INLINE void spread(const uint8_t *const rows[IN], const int32_t columns[IN], int16_t *out, size_t stride, const int cut_y,
                      const int cut_x)
{
    __m256i half[IN][IN];
    TS_UNROLL
    for (int i = 0; i < IN - cut_y; i++) {
        __m256i d[IN];
        TS_UNROLL
        for (int j = 0; j < IN - cut_x; j++)
            d[j] = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(rows[i] + columns[j])));
        spread_line(d, half[i], cut_x);
    }
    TS_UNROLL
    for (int j = 0; j < IN; j++) {
        if (!ts_winograd_needs(cut_x, j))
            continue;
        __m256i d[IN], v[IN];
        TS_UNROLL
        for (int i = 0; i < IN - cut_y; i++)
            d[i] = half[i][j];
        spread_line(d, v, cut_y);
        TS_UNROLL
        for (int i = 0; i < IN; i++)
            if (ts_winograd_needs(cut_y, i))
                _mm256_store_si256((__m256i *)(void *)(out + (size_t)(i * IN + j) * stride), v[i]);
    }
}

TS_INLINE void multiply_tiles(const int16_t *input, size_t stride, const int16_t *weights, int pairs, int32_t *products, const int M)
{
    __m256i acc[TS_WINOGRAD_IN][2];
    TS_UNROLL
    for (int m = 0; m < M; m++)
        acc[m][0] = acc[m][1] = _mm256_setzero_si256();
    const __m256i *w = (const __m256i *)(const void *)weights;
    for (int k = 0; k < pairs; k++, w += 2, input += 2) {
        const __m256i low = _mm256_load_si256(w), high = _mm256_load_si256(w + 1);
        TS_UNROLL
        for (int m = 0; m < M; m++) {
            const __m256i x = _mm256_set1_epi32(load_dword((const uint8_t *)(input + (size_t)m * stride)));
            acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(x, low));
            TS_KEEP(acc[m][0]);
            acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(x, high));
            TS_KEEP(acc[m][1]);
        }
    }
    TS_UNROLL
    for (int m = 0; m < M; m++) {
        _mm256_store_si256((__m256i *)(void *)(products + m * TS_GROUP), acc[m][0]);
        _mm256_store_si256((__m256i *)(void *)(products + m * TS_GROUP + 8), acc[m][1]);
    }
}

static void multiply(const int16_t *input, size_t stride, const int16_t *weights, int pairs, int tiles, int32_t *products)
{
    while (tiles > 0) {
        const int count = even_share(tiles, 6);
        switch (count) {
        case 6: multiply_tiles(input, stride, weights, pairs, products, 6); break;
        case 5: multiply_tiles(input, stride, weights, pairs, products, 5); break;
        case 4: multiply_tiles(input, stride, weights, pairs, products, 4); break;
        case 3: multiply_tiles(input, stride, weights, pairs, products, 3); break;
        case 2: multiply_tiles(input, stride, weights, pairs, products, 2); break;
        default: multiply_tiles(input, stride, weights, pairs, products, 1); break;
        }
        tiles -= count;
        input += (size_t)count * stride;
        products += count * TS_GROUP;
    }
}

/*
 * One row or column of A'm: 1 1 1 1 1 0; 0 1 -1 2 -2 0; 0 1 1 4 4 0; 0 1 -1 8 -8 3, as the last row of G lacks a factor of 3.
 * Where fewer are wanted it is the last of these rows that has the 3, and the points left out are missing.
 */
TS_INLINE void gather_line(const __m256i m[IN], __m256i y[OUT], const int cut)
{
    const __m256i sum = _mm256_add_epi32(m[1], m[2]), difference = _mm256_sub_epi32(m[1], m[2]);
    const __m256i last = _mm256_add_epi32(m[5], _mm256_add_epi32(m[5], m[5]));
    if (cut == 2) {
        y[0] = _mm256_add_epi32(m[0], sum);
        y[1] = _mm256_add_epi32(difference, last);
        return;
    }
    const __m256i far_sum = cut ? m[3] : _mm256_add_epi32(m[3], m[4]);
    const __m256i far_difference = cut ? m[3] : _mm256_sub_epi32(m[3], m[4]);
    y[0] = _mm256_add_epi32(_mm256_add_epi32(m[0], sum), far_sum);
    y[1] = _mm256_add_epi32(difference, _mm256_add_epi32(far_difference, far_difference));
    y[2] = _mm256_add_epi32(sum, _mm256_slli_epi32(far_sum, 2));
    if (cut)
        y[2] = _mm256_add_epi32(y[2], last);
    else
        y[3] = _mm256_add_epi32(_mm256_add_epi32(difference, last), _mm256_slli_epi32(far_difference, 3));
}

TS_INLINE void finish(ts_tile *tile, int rows, ptrdiff_t output_row, ptrdiff_t residual_row, const int32_t *products, size_t stride,
                      const int cut_y, const int cut_x)
{
    __m256i half[OUT][IN][2], bias[2];
    for (int h = 0; h < 2; h++) {
        bias[h] = _mm256_loadu_si256((const __m256i *)(const void *)((const int32_t *)tile->epilogue->bias + tile->channel + 8 * h));
        TS_UNROLL
        for (int j = 0; j < IN; j++) {
            if (!ts_winograd_needs(cut_x, j))
                continue;
            __m256i m[IN], y[OUT];
            TS_UNROLL
            for (int i = 0; i < IN; i++)
                if (ts_winograd_needs(cut_y, i))
                    m[i] = _mm256_load_si256((const __m256i *)(const void *)(products + (size_t)(i * IN + j) * stride + 8 * h));
            gather_line(m, y, cut_y);
            TS_UNROLL
            for (int i = 0; i < OUT - cut_y; i++)
                half[i][j][h] = y[i];
        }
    }
    for (int row = 0; row < rows; row++) {
        acc_t acc[OUT][2];
        TS_UNROLL
        for (int h = 0; h < 2; h++) {
            __m256i m[IN], y[OUT];
            TS_UNROLL
            for (int j = 0; j < IN; j++)
                if (ts_winograd_needs(cut_x, j))
                    m[j] = half[row][j][h];
            gather_line(m, y, cut_x);
            TS_UNROLL
            for (int j = 0; j < OUT - cut_x; j++) {
                const __m256i times_64 = _mm256_mullo_epi32(y[j], _mm256_set1_epi32(INVERSE_OF_9));
                acc[j][h] = _mm256_add_epi32(_mm256_srai_epi32(times_64, LOG_64), bias[h]);
            }
        }
        finish_group(tile, acc, 0, OUT - cut_x);
        tile->output[0] += output_row;
        if (tile->residual[0])
            tile->residual[0] += residual_row;
    }
}

/* A function of its own for every form: constants for the compiler. */
#define FORM(cut_y, cut_x)                                                                                                     \
    static void spread_##cut_y##cut_x(const uint8_t *const rows[IN], const int32_t columns[IN], int16_t *out, size_t stride)    \
    {                                                                                                                          \
        spread(rows, columns, out, stride, cut_y, cut_x);                                                                      \
    }                                                                                                                          \
    static void finish_##cut_y##cut_x(ts_tile *tile, int rows, ptrdiff_t output_row, ptrdiff_t residual_row,                 \
                                      const int32_t *products, size_t stride)                                                  \
    {                                                                                                                          \
        finish(tile, rows, output_row, residual_row, products, stride, cut_y, cut_x);                                        \
    }

FORM(0, 0) FORM(0, 1) FORM(0, 2) FORM(1, 0) FORM(1, 1) FORM(1, 2) FORM(2, 0) FORM(2, 1) FORM(2, 2)

const ts_kernel ts_winograd_avx2 = {
    "u8s8_winograd_avx2", TS_WINOGRAD, TS_U8, TS_CPU_AVX2,
    .winograd = {
        .spread = {spread_00, spread_01, spread_02, spread_10, spread_11, spread_12, spread_20, spread_21, spread_22},
        .multiply = multiply,
        .finish = {finish_00, finish_01, finish_02, finish_10, finish_11, finish_12, finish_20, finish_21, finish_22},
    },
};
