/*
 * u8 activations, s8 weights with AMX, tdpbusd: 16384 multiply-accumulates in 16 cycles.
 *
 * The products are not the bound of a convolution here: bytes from L2 and the epilogue are. So
 * - the operand that streams from L2 is loaded with tileloaddt1, which leaves the other one in L1;
 * - a tile is stored three products after its last one, when the first step of the next sum begins, for a store waits
 *   until the product is through the unit;
 * - the block before is finished between the products, evenly spread;
 * - every step has a floating-point multiplication of vectors. Without any for 2000 cycles the multipliers go to sleep,
 *   and the next store of a tile wakes them, which takes 900 cycles.
 * Measured in shared facts of this project (docs/performance.md quotes them).
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { VECTORS = TS_MATRIX_CHANNELS / 16, SUMS_STEP = TS_MATRIX_CHANNELS * 4 };

/* ---- the state of the unit ---- */

/* What ldtilecfg reads. All eight tiles are whole: 16 rows of 64 bytes. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* The compiler does not know that tile instructions read memory: makes it finish its writes first. */
TS_INLINE void publish(void)
{
    __asm__ volatile("" : : : "memory");
}

static void open_unit(uint8_t saved[64])
{
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.rows[i] = TS_MATRIX_ROWS;
        config.row_bytes[i] = TS_MATRIX_BYTES;
    }
    _tile_storeconfig(saved);
    publish();
    _tile_loadconfig(&config);
}

static void close_unit(const uint8_t saved[64])
{
    publish();
    if (saved[0])
        _tile_loadconfig(saved);
    else
        _tile_release();
}

/* ---- finishing a block ---- */

/* What an epilogue needs beyond scales: constants, so that each has its own code. */
typedef enum { PLAIN, PLAIN_RESIDUAL, GENERAL } ending;

/* The pixels of a block that are still to be finished. */
typedef struct {
    const ts_matrix_block *block;
    const ts_matrix_place *place, *tile_end;
    const int32_t *sums; /* of the current tile */
    int tile, left;      /* pixels left */
    int credit, pixels, slots; /* `pixels` are spread over `slots` calls of finish_some */
} finisher;

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
        c.bias[j] = _mm512_loadu_si512(block->bias + 16 * j);
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

/* One pixel: 64 sums to 64 bytes. As every integer kernel: round((sum + bias) * scale + residual * its scale) + zero. */
TS_INLINE void finish_pixel(const ts_matrix_tile *tile, const ts_matrix_place *place, const int32_t *sums, const constants *c,
                            const ending kind)
{
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
    __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    if (kind == GENERAL)
        bytes = _mm512_min_epu8(_mm512_max_epu8(bytes, c->low), c->high);
    _mm512_storeu_si512(tile->output + place->output, bytes);
}

TS_INLINE void enter_tile(finisher *f, int index)
{
    const ts_matrix_tile *tile = &f->block->tiles[index];
    f->tile = index;
    f->place = tile->places;
    f->tile_end = tile->places + tile->count;
    f->sums = f->block->sums + index * TS_MATRIX_ROWS * TS_MATRIX_CHANNELS;
}

/* A finisher for a block of `tiles` tiles, or for none when `block` is null. */
TS_INLINE finisher finisher_of(const ts_matrix_block *block, const int tiles, int slots)
{
    finisher f = {.block = block, .slots = slots};
    if (!block)
        return f;
    f.pixels = f.left = block->tiles[0].count + (tiles > 1 ? block->tiles[1].count : 0);
    enter_tile(&f, 0);
    return f;
}

TS_INLINE void finish_next(finisher *f, const constants *c, const ending kind)
{
    if (f->place == f->tile_end)
        enter_tile(f, f->tile + 1);
    finish_pixel(&f->block->tiles[f->tile], f->place++, f->sums, c, kind);
    f->left--;
}

/* The share of one slot. */
TS_INLINE void finish_some(finisher *f, const constants *c, const ending kind)
{
    for (f->credit += f->pixels; f->credit >= f->slots; f->credit -= f->slots)
        finish_next(f, c, kind);
}

TS_INLINE void finish_rest(finisher *f, const constants *c, const ending kind)
{
    while (f->left)
        finish_next(f, c, kind);
}

/* ---- products ---- */

/* Keeps the multipliers awake, on zeros, in a register of its own. */
#define AWAKE __asm__ volatile("vfmadd213ps %0, %0, %0" : "+x"(awake))

/* The intrinsics want literal register numbers. In 2x2: sums 0 to 3, pixels 4 and 5, weights 6 and 7. */
#define LOAD_STREAMED(register, address, step, streamed)    \
    do {                                                    \
        if (streamed)                                       \
            _tile_stream_loadd(register, address, step);    \
        else                                                \
            _tile_loadd(register, address, step);           \
    } while (0)

/* Begins a sum: stores what the tile holds of the one before, three products behind its last one. */
#define START(sum, store, pixels, weights)                  \
    do {                                                    \
        if (store)                                          \
            _tile_stored(sum, store, SUMS_STEP);            \
        _tile_zero(sum);                                    \
        _tile_dpbusd(sum, pixels, weights);                 \
    } while (0)

#define ROW_OF_SUMS(sums, row, channel) ((sums) ? (sums) + (row) * TS_MATRIX_CHANNELS + (channel) : NULL)

/*
 * 32 pixels by 64 channels, in two halves of 32 channels. The first step of a half stores the half before. With sums of its
 * own a block is finished during both halves of the next; with the same sums, which take less of L1, during the first.
 */
TS_INLINE void multiply_2x2(const ts_matrix_block *block, const ts_matrix_block *before, const int streamed, const ending kind)
{
    const uint8_t *a0 = block->tiles[0].input, *a1 = block->tiles[1].input;
    const ptrdiff_t step = block->input_step;
    const ts_matrix_step *const end = block->steps + block->step_count;
    const int apart = before && before->sums != block->sums;
    const constants c = constants_of(before ? before : block);
    finisher f = finisher_of(before, 2, 4 * block->step_count - 3 + (apart ? 4 * block->step_count : 0));
    __m128 awake = _mm_setzero_ps();
    publish();
    TS_UNROLL
    for (int half = 0; half < 2; half++) {
        const int8_t *weights = block->weights + half * block->half_bytes;
        int32_t *ready = half ? block->sums : before ? before->sums : NULL;
        const int channel = half ? 0 : 32;
        const ts_matrix_step *s = block->steps;
        LOAD_STREAMED(6, weights + s->weights, 64, streamed);
        _tile_loadd(4, a0 + s->input, step);
        START(0, ROW_OF_SUMS(ready, 0, channel), 4, 6);
        if (half && apart)
            finish_some(&f, &c, kind);
        _tile_loadd(5, a1 + s->input, step);
        START(2, ROW_OF_SUMS(ready, 16, channel), 5, 6);
        if (half && apart)
            finish_some(&f, &c, kind);
        LOAD_STREAMED(7, weights + s->weights + TS_MATRIX_TILE, 64, streamed);
        START(1, ROW_OF_SUMS(ready, 0, channel + 16), 4, 7);
        if (half && apart)
            finish_some(&f, &c, kind);
        START(3, ROW_OF_SUMS(ready, 16, channel + 16), 5, 7);
        if (!half || apart)
            finish_some(&f, &c, kind);
        AWAKE;
        for (s++; s < end; s++) {
            LOAD_STREAMED(6, weights + s->weights, 64, streamed);
            _tile_loadd(4, a0 + s->input, step);
            _tile_dpbusd(0, 4, 6);
            if (!half || apart)
                finish_some(&f, &c, kind);
            _tile_loadd(5, a1 + s->input, step);
            _tile_dpbusd(2, 5, 6);
            if (!half || apart)
                finish_some(&f, &c, kind);
            LOAD_STREAMED(7, weights + s->weights + TS_MATRIX_TILE, 64, streamed);
            _tile_dpbusd(1, 4, 7);
            if (!half || apart)
                finish_some(&f, &c, kind);
            _tile_dpbusd(3, 5, 7);
            if (!half || apart)
                finish_some(&f, &c, kind);
            AWAKE;
        }
        if (!half && !apart)
            finish_rest(&f, &c, kind);
    }
    finish_rest(&f, &c, kind);
}

/* 16 pixels by 64 channels in one pass over the reduction. Sums 0 to 3, pixels 4, weights 5 to 7. */
TS_INLINE void multiply_1x4(const ts_matrix_block *block, const ts_matrix_block *before, const ending kind)
{
    const uint8_t *a = block->tiles[0].input;
    const int8_t *first = block->weights, *second = first + block->half_bytes;
    const ptrdiff_t step = block->input_step;
    const ts_matrix_step *s = block->steps, *const end = s + block->step_count;
    int32_t *ready = before ? before->sums : NULL;
    const constants c = constants_of(before ? before : block);
    finisher f = finisher_of(before, 1, 4 * block->step_count - 3);
    __m128 awake = _mm_setzero_ps();
    publish();
    _tile_stream_loadd(4, a + s->input, step);
    _tile_loadd(5, first + s->weights, 64);
    START(0, ROW_OF_SUMS(ready, 0, 0), 4, 5);
    _tile_loadd(6, first + s->weights + TS_MATRIX_TILE, 64);
    START(1, ROW_OF_SUMS(ready, 0, 16), 4, 6);
    _tile_loadd(7, second + s->weights, 64);
    START(2, ROW_OF_SUMS(ready, 0, 32), 4, 7);
    _tile_loadd(5, second + s->weights + TS_MATRIX_TILE, 64);
    START(3, ROW_OF_SUMS(ready, 0, 48), 4, 5);
    finish_some(&f, &c, kind);
    AWAKE;
    for (s++; s < end; s++) {
        _tile_stream_loadd(4, a + s->input, step);
        _tile_loadd(5, first + s->weights, 64);
        _tile_dpbusd(0, 4, 5);
        finish_some(&f, &c, kind);
        _tile_loadd(6, first + s->weights + TS_MATRIX_TILE, 64);
        _tile_dpbusd(1, 4, 6);
        finish_some(&f, &c, kind);
        _tile_loadd(7, second + s->weights, 64);
        _tile_dpbusd(2, 4, 7);
        finish_some(&f, &c, kind);
        _tile_loadd(5, second + s->weights + TS_MATRIX_TILE, 64);
        _tile_dpbusd(3, 4, 5);
        finish_some(&f, &c, kind);
        AWAKE;
    }
    finish_rest(&f, &c, kind);
}

static ending ending_of(const ts_matrix_block *block)
{
    if (!block->epilogue->plain)
        return GENERAL;
    return block->tiles[0].residual ? PLAIN_RESIDUAL : PLAIN;
}

/* `call` with each ending as the constant `kind`: all blocks of a layer end alike. */
#define FOR_ENDING(block, call)                             \
    switch (ending_of(block)) {                             \
    case PLAIN: {                                           \
        const ending kind = PLAIN;                          \
        call;                                               \
    } break;                                                \
    case PLAIN_RESIDUAL: {                                  \
        const ending kind = PLAIN_RESIDUAL;                 \
        call;                                               \
    } break;                                                \
    case GENERAL: {                                         \
        const ending kind = GENERAL;                        \
        call;                                               \
    } break;                                                \
    }

static void multiply_cached(const ts_matrix_block *block, const ts_matrix_block *before)
{
    FOR_ENDING(block, multiply_2x2(block, before, 0, kind))
}

static void multiply_streamed(const ts_matrix_block *block, const ts_matrix_block *before)
{
    FOR_ENDING(block, multiply_2x2(block, before, 1, kind))
}

static void multiply_row(const ts_matrix_block *block, const ts_matrix_block *before)
{
    FOR_ENDING(block, multiply_1x4(block, before, kind))
}

static void finish_block(const ts_matrix_block *block, const int tiles)
{
    const constants c = constants_of(block);
    finisher f = finisher_of(block, tiles, 1);
    publish();
    FOR_ENDING(block, finish_rest(&f, &c, kind))
}

static void finish_2x2(const ts_matrix_block *last)
{
    _tile_stored(0, ROW_OF_SUMS(last->sums, 0, 32), SUMS_STEP);
    _tile_stored(2, ROW_OF_SUMS(last->sums, 16, 32), SUMS_STEP);
    _tile_stored(1, ROW_OF_SUMS(last->sums, 0, 48), SUMS_STEP);
    _tile_stored(3, ROW_OF_SUMS(last->sums, 16, 48), SUMS_STEP);
    finish_block(last, 2);
}

static void finish_1x4(const ts_matrix_block *last)
{
    _tile_stored(0, last->sums, SUMS_STEP);
    _tile_stored(1, last->sums + 16, SUMS_STEP);
    _tile_stored(2, last->sums + 32, SUMS_STEP);
    _tile_stored(3, last->sums + 48, SUMS_STEP);
    finish_block(last, 1);
}

const ts_kernel ts_matrix_u8s8_amx = {
    "u8s8_matrix_amx", TS_MATRIX, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI | TS_CPU_AMXINT8,
    .matrix = {
        .block = TS_MATRIX_BYTES,
        .open = open_unit,
        .close = close_unit,
        .multiply = {multiply_cached, multiply_streamed, multiply_row},
        .finish = {finish_2x2, finish_2x2, finish_1x4},
    },
};
