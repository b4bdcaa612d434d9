/*
 * bfloat16 with AMX, tdpbf16ps: 8192 multiply-accumulates in 16 cycles, sums in single precision. A block of 32 channels is
 * a line, so a pixel of a panel is stored in two.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { VECTORS = TS_MATRIX_CHANNELS / 16 };

#define MULTIPLY(sums, pixels, weights) _tile_dpbf16ps(sums, pixels, weights)

typedef enum { PLAIN, PLAIN_RESIDUAL } ending;
#define ENDINGS(call) ENDING(PLAIN, call) ENDING(PLAIN_RESIDUAL, call)

typedef struct {
    __m512 bias[VECTORS], residual_scale, low, high;
} constants;

TS_INLINE constants constants_of(const ts_matrix_block *block)
{
    constants c;
    const ts_epilogue *e = block->epilogue;
    TS_UNROLL
    for (int j = 0; j < VECTORS; j++)
        c.bias[j] = _mm512_loadu_ps((const float *)block->bias + 16 * j);
    c.residual_scale = _mm512_set1_ps(e->residual_scale);
    c.low = _mm512_set1_ps(e->float_low);
    c.high = _mm512_set1_ps(e->float_high);
    return c;
}

TS_INLINE __m512 load_bf16(const uint8_t *source)
{
    const __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)source);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* One pixel: 64 sums to two lines. Denormals are flushed. */
TS_INLINE void finish_pixel(const ts_matrix_block *block, const ts_matrix_tile *tile, const ts_matrix_place *place, const int32_t *sums,
                            const constants *c, const ending kind)
{
    const float *row = (const float *)(const void *)sums + place->row * TS_MATRIX_CHANNELS;
    TS_UNROLL
    for (int j = 0; j < VECTORS; j++) {
        const ptrdiff_t vector = 32 * (j % 2);
        __m512 value = _mm512_add_ps(_mm512_loadu_ps(row + 16 * j), c->bias[j]);
        if (kind == PLAIN_RESIDUAL)
            value = _mm512_fmadd_ps(load_bf16(tile->residual + place->residual + j / 2 * block->residual_plane + vector),
                                    c->residual_scale, value);
        /* In this order of operands not-a-number stays. */
        value = _mm512_min_ps(c->high, _mm512_max_ps(c->low, value));
        _mm256_storeu_si256((__m256i *)(void *)(tile->output + place->output + j / 2 * block->output_plane + vector),
                            (__m256i)_mm512_cvtneps_pbh(value));
    }
}

static ending ending_of(const ts_matrix_block *block)
{
    return block->tiles[0].residual ? PLAIN_RESIDUAL : PLAIN;
}

#include "matrix_amx.inc"

static int channel_of(int tile, int column)
{
    return 16 * tile + column;
}

const ts_kernel ts_matrix_bf16_amx = {
    "bf16_matrix_amx", TS_MATRIX, TS_BF16, TS_CPU_AVX512 | TS_CPU_AVX512BF16 | TS_CPU_AMXBF16,
    .matrix = {
        .block = TS_MATRIX_BYTES / 2,
        .channel = channel_of,
        .open = open_unit,
        .close = close_unit,
        .multiply = {multiply_cached, multiply_streamed, multiply_row},
        .finish = {finish_2x2, finish_2x2, finish_1x4},
    },
};
