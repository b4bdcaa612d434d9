/*
 * u8 activations, s8 weights on AVX2, exactly. vpmaddubsw would saturate (2 * 255 * 127 exceeds 16 bits), so both
 * sides are widened to 16 bits and vpmaddwd adds pairs in 32: the same sums as VNNI.
 *
 * Weights are widened when they are packed. Activations are widened once for the four blocks of a tile, into a buffer
 * that stays in L1, in the order in which they are read: what is left in the loop for 32 products is one vpmaddwd and
 * one vpaddd each, a broadcast from memory for two of them, and a weight vector for six pixels. 6 pixels by 16 channels
 * are 12 accumulators, two weight halves, one broadcast and one product: all 16 registers.
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

enum {
    TILE_PIXELS = 6,
    TILE_BLOCKS = 4,
    CHUNK = 128,             /* reduction entries that are widened at a time: 12 KB for 6 pixels */
    PAIR_BYTES = 64,         /* weights of one channel pair: [16 lanes][2] s16 */
    DWORD_BYTES = 2 * PAIR_BYTES,
    ENTRY_BYTES = 2 * TILE_BLOCKS * DWORD_BYTES,
};

/* Zero-extends `entries` entries of the tile's pixels: [entry][pixel][8] s16. */
TS_INLINE void widen(const ts_tile *t, const int32_t *offsets, int entries, int16_t *wide, const int M)
{
    for (int e = 0; e < entries; e++, wide += M * TS_STEP_BYTES) {
        const uint8_t *a = t->input[0] + offsets[e];
        TS_UNROLL
        for (int m = 0; m < M; m++) {
            const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(a + m * t->pixel_step));
            _mm_store_si128((__m128i *)(void *)(wide + m * TS_STEP_BYTES), _mm_cvtepu8_epi16(bytes));
        }
    }
}

TS_INLINE __m256i broadcast_pair(const int16_t *pair)
{
    return _mm256_set1_epi32(load_dword((const uint8_t *)pair));
}

/* Adds the products of one block over the widened entries. */
TS_INLINE void reduce(acc_t (*acc)[2], const int16_t *wide, const char *weights, int entries, const int M)
{
    for (const int16_t *end = wide + entries * M * TS_STEP_BYTES; wide < end; wide += M * TS_STEP_BYTES, weights += ENTRY_BYTES) {
        TS_UNROLL
        for (int pair = 0; pair < TS_STEP_BYTES / 2; pair++) {
            const __m256i *w = (const __m256i *)(const void *)(weights + pair / 2 * TILE_BLOCKS * DWORD_BYTES + pair % 2 * PAIR_BYTES);
            const __m256i low = _mm256_load_si256(w), high = _mm256_load_si256(w + 1);
            TS_UNROLL
            for (int m = 0; m < M; m++) {
                const __m256i x = broadcast_pair(wide + m * TS_STEP_BYTES + 2 * pair);
                acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(x, low));
                TS_KEEP(acc[m][0]);
                acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(x, high));
                TS_KEEP(acc[m][1]);
            }
        }
    }
}

TS_INLINE void widening_tile(const ts_tile *t, const int M)
{
    _Alignas(TS_ALIGN) int16_t wide[CHUNK * TILE_PIXELS * TS_STEP_BYTES];
    acc_t sums[TILE_BLOCKS][TILE_PIXELS][2]; /* between chunks */
    const char *weights = t->weights;
    int done = 0;
    do {
        const int entries = t->entries - done < CHUNK ? t->entries - done : CHUNK;
        const int first = done == 0, last = done + entries == t->entries;
        widen(t, t->offsets + done, entries, wide, M);
        for (int n = 0; n < t->blocks; n++) {
            acc_t acc[TILE_PIXELS][2];
            TS_UNROLL
            for (int i = 0; i < 2 * M; i++)
                acc[i / 2][i % 2] = first ? init(t->epilogue->bias, t->channel + (size_t)(TS_LANES * n + 8 * (i % 2))) : sums[n][i / 2][i % 2];
            reduce(acc, wide, weights + n * DWORD_BYTES, entries, M);
            if (last) {
                finish_block(t, acc, n, M);
            } else {
                TS_UNROLL
                for (int i = 0; i < 2 * M; i++)
                    sums[n][i / 2][i % 2] = acc[i / 2][i % 2];
            }
        }
        done += entries;
        weights += entries * ENTRY_BYTES;
    } while (done < t->entries);
}

static void tile_1(const ts_tile *t) { widening_tile(t, 1); }
static void tile_2(const ts_tile *t) { widening_tile(t, 2); }
static void tile_3(const ts_tile *t) { widening_tile(t, 3); }
static void tile_4(const ts_tile *t) { widening_tile(t, 4); }
static void tile_5(const ts_tile *t) { widening_tile(t, 5); }
static void tile_6(const ts_tile *t) { widening_tile(t, 6); }

#include "row_avx2.inc"

const ts_kernel ts_conv_u8s8_avx2 = {"u8s8_6x4_avx2", TS_CPU_AVX2, TS_U8, TILE_PIXELS, TILE_BLOCKS, TS_PACK_S16, select_tile};
