/*
 * u8 activations, s8 weights on AVX2, exactly. vpmaddubsw multiplies 32 bytes an instruction, but adds its products in 16
 * bits, and vpmaddwd by ones and vpaddd must follow. So the reduction comes in the order of chains.h, which proves from
 * the weights which products can be added in 16 bits: a chain of n members costs 2 n + 1 instructions for 32 n products,
 * n + 1 of them on the two multipliers, so four members cost little more than half of four single ones.
 *
 * 4 pixels by 16 channels: 8 accumulators, the ones and the sums of one chain in registers; weights come from L1.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

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

/* The chains of N members. */
TS_INLINE void add_chains(const ts_tile *t, acc_t (*acc)[2], const int M, const int N)
{
    const ts_member_list *list = &t->chains[N - 1];
    const ts_member *member = list->members, *end = member + list->count;
    const int8_t *w = list->weights;
    for (; member < end; member += N, w += N * MEMBER_BYTES) {
        TS_UNROLL
        for (int n = 0; n < N; n++)
            _mm_prefetch((const char *)w + n * MEMBER_BYTES + TS_WEIGHTS_AHEAD, _MM_HINT_T0);
        TS_UNROLL
        for (int m = 0; m < M; m++) {
            const uint8_t *pixel = t->input[0] + m * t->pixel_step;
            __m256i sums[2];
            TS_UNROLL
            for (int n = 0; n < N; n++) {
                __m256i x = load_pixel(pixel, member + n);
                TS_PIN(x);
                TS_UNROLL
                for (int h = 0; h < 2; h++) {
                    __m256i products = _mm256_maddubs_epi16(x, load(w + n * MEMBER_BYTES + 32 * h));
                    TS_PIN(products);
                    sums[h] = n ? _mm256_add_epi16(sums[h], products) : products;
                    TS_PIN(sums[h]);
                }
            }
            add_widened(&acc[m][0], sums[0]);
            add_widened(&acc[m][1], sums[1]);
        }
    }
}

TS_INLINE void chained_tile(const ts_tile *t, const int M)
{
    acc_t acc[TS_MAX_PIXELS][2];
    TS_UNROLL
    for (int m = 0; m < M; m++) {
        acc[m][0] = init(t->epilogue->bias, t->channel);
        acc[m][1] = init(t->epilogue->bias, t->channel + 8);
    }
    add_chains(t, acc, M, 4);
    add_chains(t, acc, M, 3);
    add_chains(t, acc, M, 2);
    add_chains(t, acc, M, 1);
    finish_group(t, acc, 0, M, 0);
}

static void tile_1(const ts_tile *t) { chained_tile(t, 1); }
static void tile_2(const ts_tile *t) { chained_tile(t, 2); }
static void tile_3(const ts_tile *t) { chained_tile(t, 3); }
static void tile_4(const ts_tile *t) { chained_tile(t, 4); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    static const ts_tile_fn tiles[] = {tile_1, tile_2, tile_3, tile_4};
    (void)pixel_step;
    if (split)
        return NULL;
    *capacity = even_share(pixels, 4);
    return tiles[*capacity - 1];
}

const ts_kernel ts_conv_u8s8_avx2 = {
    "u8s8_4x1_avx2", TS_CONV, TS_U8, TS_CPU_AVX2,
    .conv = {.block = TS_GROUP, .pixels = 4, .groups = 1, .packing = TS_PACK_CHAINS, .select = select_tile},
};
