/*
 * u8 activations, s8 weights with AMX, tdpbusd: 16384 multiply-accumulates in 16 cycles. A block of 64 channels is a line.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { VECTORS = TS_MATRIX_CHANNELS / 16 };

#define MULTIPLY(sums, pixels, weights) _tile_dpbusd(sums, pixels, weights)

/* What an epilogue needs beyond scales: constants, so that each has its own code. */
typedef enum { PLAIN, PLAIN_RESIDUAL, WHOLE_RESIDUAL, GENERAL } ending;
#define ENDINGS(call) ENDING(PLAIN, call) ENDING(PLAIN_RESIDUAL, call) ENDING(WHOLE_RESIDUAL, call) ENDING(GENERAL, call)

typedef struct {
    __m512i bias[VECTORS], spread[VECTORS], zero, residual_zero, low, high;
    __m512 scale[VECTORS], residual_scale;
} constants;

TS_INLINE constants constants_of(const ts_matrix_block *block)
{
    constants c;
    const ts_epilogue *e = block->epilogue;
    TS_UNROLL
    for (int j = 0; j < VECTORS; j++) {
        c.bias[j] = _mm512_loadu_si512((const int32_t *)block->bias + 16 * j);
        c.scale[j] = _mm512_loadu_ps(block->scale + 16 * j);
        /* Byte 4 j + k of each lane becomes dword k. */
        c.spread[j] = _mm512_add_epi32(_mm512_set4_epi32((int)0x80808003, (int)0x80808002, (int)0x80808001, (int)0x80808000),
                                       _mm512_set1_epi32(4 * j));
    }
    c.residual_scale = _mm512_set1_ps(e->residual_scale);
    c.zero = _mm512_set1_epi32(e->out_zero);
    c.residual_zero = _mm512_set1_epi32(e->residual_zero);
    c.low = _mm512_set1_epi8((char)e->low);
    c.high = _mm512_set1_epi8((char)e->high);
    return c;
}

/* One pixel: 64 sums to 64 bytes, as every integer kernel. */
TS_INLINE void finish_pixel(const ts_matrix_block *block, const ts_matrix_tile *tile, const ts_matrix_place *place, const int32_t *sums,
                            const constants *c, const ending kind)
{
    (void)block;
    const int32_t *row = sums + place->row * TS_MATRIX_CHANNELS;
    __m512 value[VECTORS];
    __m512i q[VECTORS];
    TS_UNROLL
    for (int j = 0; j < VECTORS; j++)
        value[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_loadu_si512(row + 16 * j), c->bias[j])), c->scale[j]);
    if (kind == PLAIN_RESIDUAL || (kind == GENERAL && tile->residual)) {
        const __m512i bytes = _mm512_loadu_si512(tile->residual + place->residual);
        TS_UNROLL
        for (int j = 0; j < VECTORS; j++) {
            __m512i r = _mm512_shuffle_epi8(bytes, c->spread[j]);
            if (kind == GENERAL)
                r = _mm512_sub_epi32(r, c->residual_zero);
            value[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(r), c->residual_scale, value[j]);
        }
    }
    TS_UNROLL
    for (int j = 0; j < VECTORS; j++) {
        q[j] = _mm512_cvtps_epi32(value[j]);
        if (kind == GENERAL)
            q[j] = _mm512_add_epi32(q[j], c->zero);
    }
    __m512i low = _mm512_packs_epi32(q[0], q[1]), high = _mm512_packs_epi32(q[2], q[3]);
    if (kind == WHOLE_RESIDUAL) { /* the order that packing has left is the one of the unpacked bytes */
        const __m512i residual = _mm512_loadu_si512(tile->residual + place->residual);
        low = _mm512_adds_epi16(low, _mm512_unpacklo_epi8(residual, _mm512_setzero_si512()));
        high = _mm512_adds_epi16(high, _mm512_unpackhi_epi8(residual, _mm512_setzero_si512()));
    }
    __m512i bytes = _mm512_packus_epi16(low, high);
    if (kind == GENERAL)
        bytes = _mm512_min_epu8(_mm512_max_epu8(bytes, c->low), c->high);
    _mm512_storeu_si512(tile->output + place->output, bytes);
}

static ending ending_of(const ts_matrix_block *block)
{
    if (!block->epilogue->plain)
        return GENERAL;
    if (!block->tiles[0].residual)
        return PLAIN;
    return block->epilogue->whole_residual ? WHOLE_RESIDUAL : PLAIN_RESIDUAL;
}

#include "matrix_amx.inc"

/* In this order the two instructions that narrow four vectors of sums to bytes leave a pixel's channels as they are stored. */
static int channel_of(int tile, int column)
{
    return 16 * (column / 4) + 4 * tile + column % 4;
}

const ts_kernel ts_matrix_u8s8_amx = {
    "u8s8_matrix_amx", TS_MATRIX, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI | TS_CPU_AMXINT8,
    .matrix = {
        .block = TS_MATRIX_BYTES,
        .channel = channel_of,
        .open = open_unit,
        .close = close_unit,
        .multiply = {multiply_cached, multiply_streamed, multiply_row},
        .finish = {finish_2x2, finish_2x2, finish_1x4},
    },
};
