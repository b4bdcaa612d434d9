/* Two taps at a time by vpmaddwd, once for either half of the weights. */
#include "kernels/table.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = 4, DOWN_BYTES = 16 };

typedef struct {
    __m256i high, low;
} sums;

static void add_products(sums *s, __m256i samples, const ts_tap_pair *pair)
{
    int32_t high, low;
    memcpy(&high, pair->high, sizeof high);
    memcpy(&low, pair->low, sizeof low);
    s->high = _mm256_add_epi32(s->high, _mm256_madd_epi16(samples, _mm256_set1_epi32(high)));
    s->low = _mm256_add_epi32(s->low, _mm256_madd_epi16(samples, _mm256_set1_epi32(low)));
}

static sums half(void)
{
    return (sums){_mm256_setzero_si256(), _mm256_set1_epi32(1 << (TS_WEIGHT_BITS - 1))};
}

static __m256i rounded(const sums *s)
{
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(s->high, TS_LOW_BITS), s->low), TS_WEIGHT_BITS);
}

static __m256i two_rows(__m128i upper, __m128i lower)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(upper), lower, 1);
}

/* Both pixels' reds, then their greens, blues and fourth bytes, as 16-bit words; of two rows. */
static __m256i neighbours(const uint8_t *upper, const uint8_t *lower)
{
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
    return _mm256_shuffle_epi8(two_rows(_mm_loadl_epi64((const __m128i *)(const void *)upper),
                                        _mm_loadl_epi64((const __m128i *)(const void *)lower)), order);
}

static __m128i pixel(const uint8_t *source)
{
    int32_t bytes;
    memcpy(&bytes, source, sizeof bytes);
    return _mm_cvtsi32_si128(bytes);
}

/* A pixel beside none: what its weight of 0 meets must not be read, it may lie behind the picture. */
static __m256i last(const uint8_t *upper, const uint8_t *lower)
{
    return _mm256_cvtepu8_epi16(_mm_unpacklo_epi64(_mm_unpacklo_epi8(pixel(upper), _mm_setzero_si128()),
                                                   _mm_unpacklo_epi8(pixel(lower), _mm_setzero_si128())));
}

static void store_pixels(const sums *s, uint8_t *upper, uint8_t *lower)
{
    const __m256i words = _mm256_packs_epi32(rounded(s), _mm256_setzero_si256());
    const __m256i bytes = _mm256_packus_epi16(words, words);
    const int32_t pixels[2] = {_mm256_extract_epi32(bytes, 0), _mm256_extract_epi32(bytes, 4)};
    memcpy(upper, &pixels[0], sizeof pixels[0]);
    memcpy(lower, &pixels[1], sizeof pixels[1]);
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
                add_products(&above, neighbours(from[0] + byte, from[1] + byte), pair);
                add_products(&below, neighbours(from[2] + byte, from[3] + byte), pair);
            }
            if (taps & 1) {
                add_products(&above, last(from[0] + byte, from[1] + byte), pair);
                add_products(&below, last(from[2] + byte, from[3] + byte), pair);
            }
            store_pixels(&above, to[0] + x * TS_OUT_PIXEL, to[1] + x * TS_OUT_PIXEL);
            store_pixels(&below, to[2] + x * TS_OUT_PIXEL, to[3] + x * TS_OUT_PIXEL);
        }
    }
}

/* The same bytes of two rows side by side: eight of them become words in each half of the result. */
static __m256i interleaved(__m128i upper, __m128i lower)
{
    return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(upper, lower));
}

static __m128i column(const ts_tap_pair *pair, int taps, const uint8_t *in, ptrdiff_t stride)
{
    sums left = half(), right = half();
    for (; taps > 0; taps -= 2, in += 2 * stride, pair++) {
        const __m128i upper = _mm_loadu_si128((const __m128i *)(const void *)in);
        const __m128i lower = taps > 1 ? _mm_loadu_si128((const __m128i *)(const void *)(in + stride)) : _mm_setzero_si128();
        add_products(&left, interleaved(upper, lower), pair);
        add_products(&right, interleaved(_mm_srli_si128(upper, 8), _mm_srli_si128(lower, 8)), pair);
    }
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(rounded(&left), rounded(&right)), 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

static void down(const ts_resampling *axis, int output, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, int bytes)
{
    const ts_tap_pair *pairs = axis->pairs + (ptrdiff_t)output * axis->stride;
    in += axis->first[output] * in_stride;
    for (int i = 0; i < bytes; i += DOWN_BYTES) {
        const __m128i result = column(pairs, axis->taps[output], in + i, in_stride);
        memcpy(out + i, &result, (size_t)(bytes - i < DOWN_BYTES ? bytes - i : DOWN_BYTES));
    }
}

const ts_kernel ts_resample_avx2 = {"resample_avx2", TS_RESAMPLING, TS_U8, TS_CPU_AVX2, .resample = {across, down}};
