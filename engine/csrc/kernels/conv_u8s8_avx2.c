/*
 * u8 activations, s8 weights on AVX2, exactly. vpmaddubsw multiplies 32 bytes an instruction, but adds its products in 16
 * bits, and vpmaddwd by ones and vpaddd must follow. So the reduction comes in the order of pairing.h, which proves from
 * the weights which products can be added in 16 bits: most dwords come as twins, whose products are added before they are
 * widened, and cost five instructions for 64 products, the rest as singles, three for 32.
 *
 * 4 pixels by 16 channels: 8 accumulators, weights, the ones and what is on its way between them fill 16 registers.
 */
#include "../kernels.h"
#include "unroll.h"

#include <immintrin.h>

typedef __m256i acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)((const int32_t *)bias + channel));
}

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale);
}

#include "epilogue_avx2.inc"

enum { MEMBER_BYTES = 64 }; /* weights: [16 lanes][4] s8 */

TS_INLINE __m256i load(const void *source)
{
    return _mm256_load_si256(source);
}

TS_INLINE __m256i load_pixel(const uint8_t *pixel, const ts_member *member)
{
    return _mm256_set1_epi32(load_dword(pixel + member->offset));
}

TS_INLINE void add_widened(acc_t *acc, __m256i sums)
{
    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
}

TS_INLINE void add_twins(const ts_tile *t, acc_t (*acc)[2], const int M)
{
    const ts_member *member = t->twins.members, *end = member + t->twins.count;
    const int8_t *w = t->twins.weights;
    for (; member < end; member += 2, w += 2 * MEMBER_BYTES) {
        TS_UNROLL
        for (int m = 0; m < M; m++) {
            const uint8_t *pixel = t->input[0] + m * t->pixel_step;
            const __m256i a = load_pixel(pixel, member), b = load_pixel(pixel, member + 1);
            TS_UNROLL
            for (int h = 0; h < 2; h++) {
                const __m256i first = _mm256_maddubs_epi16(a, load(w + 32 * h));
                const __m256i second = _mm256_maddubs_epi16(b, load(w + MEMBER_BYTES + 32 * h));
                add_widened(&acc[m][h], _mm256_add_epi16(first, second));
            }
        }
    }
}

TS_INLINE void add_singles(const ts_tile *t, acc_t (*acc)[2], const int M)
{
    const ts_member *member = t->singles.members, *end = member + t->singles.count;
    const int8_t *w = t->singles.weights;
    for (; member < end; member++, w += MEMBER_BYTES) {
        TS_UNROLL
        for (int m = 0; m < M; m++) {
            const __m256i x = load_pixel(t->input[0] + m * t->pixel_step, member);
            add_widened(&acc[m][0], _mm256_maddubs_epi16(x, load(w)));
            add_widened(&acc[m][1], _mm256_maddubs_epi16(x, load(w + 32)));
        }
    }
}

TS_INLINE void paired_tile(const ts_tile *t, const int M)
{
    acc_t acc[TS_MAX_PIXELS][2];
    TS_UNROLL
    for (int m = 0; m < M; m++) {
        acc[m][0] = init(t->epilogue->bias, t->channel);
        acc[m][1] = init(t->epilogue->bias, t->channel + 8);
    }
    add_twins(t, acc, M);
    add_singles(t, acc, M);
    finish_block(t, acc, 0, M);
}

static void tile_1(const ts_tile *t) { paired_tile(t, 1); }
static void tile_2(const ts_tile *t) { paired_tile(t, 2); }
static void tile_3(const ts_tile *t) { paired_tile(t, 3); }
static void tile_4(const ts_tile *t) { paired_tile(t, 4); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    static const ts_tile_fn tiles[] = {tile_1, tile_2, tile_3, tile_4};
    (void)pixel_step;
    if (split)
        return NULL;
    *capacity = even_share(pixels, 4);
    return tiles[*capacity - 1];
}

const ts_kernel ts_conv_u8s8_avx2 = {"u8s8_4x1_avx2", TS_CPU_AVX2, TS_U8, 4, 1, TS_PACK_TWINS, select_tile};
