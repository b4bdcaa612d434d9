/* As on AVX2, with four rows in a vector across, and 32 bytes of a row down. */
#include "kernels/table.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = 8, LANES = 4, DOWN_BYTES = 32 };

typedef struct {
    __m512i high, low;
} sums;

static void add_products(sums *s, __m512i samples, const ts_tap_pair *pair)
{
    int32_t high, low;
    memcpy(&high, pair->high, sizeof high);
    memcpy(&low, pair->low, sizeof low);
    s->high = _mm512_add_epi32(s->high, _mm512_madd_epi16(samples, _mm512_set1_epi32(high)));
    s->low = _mm512_add_epi32(s->low, _mm512_madd_epi16(samples, _mm512_set1_epi32(low)));
}

static sums half(void)
{
    return (sums){_mm512_setzero_si512(), _mm512_set1_epi32(1 << (TS_WEIGHT_BITS - 1))};
}

static __m512i rounded(const sums *s)
{
    return _mm512_srai_epi32(_mm512_add_epi32(_mm512_slli_epi32(s->high, TS_LOW_BITS), s->low), TS_WEIGHT_BITS);
}

static __m512i four_rows(const __m128i *rows)
{
    const __m256i upper = _mm256_inserti128_si256(_mm256_castsi128_si256(rows[0]), rows[1], 1);
    const __m256i lower = _mm256_inserti128_si256(_mm256_castsi128_si256(rows[2]), rows[3], 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(upper), lower, 1);
}

/* Both pixels' reds, then their greens, blues and fourth bytes, as 16-bit words; of four rows. */
static __m512i in_pairs(const __m128i *rows)
{
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
    return _mm512_shuffle_epi8(four_rows(rows), order);
}

static __m512i neighbours(const uint8_t *const *from, ptrdiff_t byte)
{
    __m128i rows[LANES];
    for (int i = 0; i < LANES; i++)
        rows[i] = _mm_loadl_epi64((const __m128i *)(const void *)(from[i] + byte));
    return in_pairs(rows);
}

/* A pixel beside none: what its weight of 0 meets must not be read, it may lie behind the picture. */
static __m512i last(const uint8_t *const *from, ptrdiff_t byte)
{
    __m128i rows[LANES];
    for (int i = 0; i < LANES; i++) {
        int32_t pixel;
        memcpy(&pixel, from[i] + byte, sizeof pixel);
        rows[i] = _mm_cvtsi32_si128(pixel);
    }
    return in_pairs(rows);
}

/* The pixels of four rows. */
static void store_pixels(const sums *s, uint8_t *const *to, ptrdiff_t byte)
{
    int32_t pixels[LANES];
    const __m512i clamped = _mm512_max_epi32(rounded(s), _mm512_setzero_si512());
    _mm_storeu_si128((__m128i *)(void *)pixels, _mm512_cvtusepi32_epi8(clamped));
    for (int i = 0; i < LANES; i++)
        memcpy(to[i] + byte, &pixels[i], sizeof pixels[i]);
}

/* Rows that the picture lacks are another time its last one. */
static void across(const ts_resampling *axis, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t out_stride, int rows)
{
    for (int row = 0; row < rows; row += ROWS) {
        const uint8_t *from[ROWS];
        uint8_t *to[ROWS];
        for (int i = 0; i < ROWS; i++) {
            const int present = row + i < rows ? row + i : rows - 1;
            from[i] = in + present * in_stride;
            to[i] = out + present * out_stride;
        }
        for (int x = 0; x < axis->outputs; x++) {
            const ts_tap_pair *pair = axis->pairs + (ptrdiff_t)x * axis->stride;
            const ptrdiff_t taps = axis->taps[x];
            ptrdiff_t byte = (ptrdiff_t)axis->first[x] * TS_IN_PIXEL;
            const ptrdiff_t end = byte + (taps & ~1) * TS_IN_PIXEL;
            sums above = half(), below = half();
            for (; byte < end; byte += 2 * TS_IN_PIXEL, pair++) {
                add_products(&above, neighbours(from, byte), pair);
                add_products(&below, neighbours(from + LANES, byte), pair);
            }
            if (taps & 1) {
                add_products(&above, last(from, byte), pair);
                add_products(&below, last(from + LANES, byte), pair);
            }
            store_pixels(&above, to, (ptrdiff_t)x * TS_OUT_PIXEL);
            store_pixels(&below, to + LANES, (ptrdiff_t)x * TS_OUT_PIXEL);
        }
    }
}

/* The same bytes of two rows side by side, as words. */
static __m512i interleaved(__m128i upper, __m128i lower)
{
    const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(upper, lower)),
                                                  _mm_unpackhi_epi8(upper, lower), 1);
    return _mm512_cvtepu8_epi16(bytes);
}

static __m128i load(const uint8_t *source)
{
    return _mm_loadu_si128((const __m128i *)(const void *)source);
}

static void column(const ts_tap_pair *pair, int taps, const uint8_t *in, ptrdiff_t stride, uint8_t *out)
{
    sums left = half(), right = half();
    for (; taps > 0; taps -= 2, in += 2 * stride, pair++) {
        const uint8_t *lower = taps > 1 ? in + stride : in; /* which a weight of 0 meets */
        add_products(&left, interleaved(load(in), load(lower)), pair);
        add_products(&right, interleaved(load(in + 16), load(lower + 16)), pair);
    }
    const __m512i zero = _mm512_setzero_si512();
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtusepi32_epi8(_mm512_max_epi32(rounded(&left), zero)));
    _mm_storeu_si128((__m128i *)(void *)(out + 16), _mm512_cvtusepi32_epi8(_mm512_max_epi32(rounded(&right), zero)));
}

static void down(const ts_resampling *axis, int output, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, int bytes)
{
    const ts_tap_pair *pairs = axis->pairs + (ptrdiff_t)output * axis->stride;
    in += axis->first[output] * in_stride;
    int i = 0;
    for (; i + DOWN_BYTES <= bytes; i += DOWN_BYTES)
        column(pairs, axis->taps[output], in + i, in_stride, out + i);
    if (i < bytes) {
        uint8_t rest[DOWN_BYTES];
        column(pairs, axis->taps[output], in + i, in_stride, rest);
        memcpy(out + i, rest, (size_t)(bytes - i));
    }
}

const ts_kernel ts_resample_avx512 = {"resample_avx512", TS_RESAMPLING, TS_U8, TS_CPU_AVX512, .resample = {across, down}};
