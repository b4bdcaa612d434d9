/*
 * u8 activations, s8 weights with AMX, tdpbusd: 16 rows by 16 channels by 64 bytes, 16384 multiply-accumulates an
 * instruction that takes one cycle per row. 14 pixels by 4 groups: feature maps are multiples of 14 or 7 wide, rows
 * beyond the tile's pixels are configured away, and four groups share the price of gathering the pixels.
 *
 * A wants 64 contiguous bytes of each pixel, which blocks of 16 channels do not have: one vpgatherdq collects the eight 8-byte
 * entries of a step into a row. B wants 16 rows of 16 channels by 4 bytes, which the packed panel has as it is: a row
 * is a dword step, and the stride between rows is the width of the panel. The last step may be shorter.
 *
 * The tile configuration belongs to the thread and is also other libraries' to change, so every call loads its own and
 * releases it: nothing outlives the kernel, and nobody pays for saving tiles outside it.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

/* tests/native/test_tiles.c runs this file on any AVX-512 machine, with the tile instructions in plain C. */
#ifdef TS_EMULATED
#include "amx_emulated.h"
#endif

typedef __m512i acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm512_loadu_si512((const int32_t *)bias + channel);
}

TS_INLINE __m512i broadcast(const uint8_t *dword)
{
    return _mm512_set1_epi32(load_dword(dword));
}

TS_INLINE acc_t dot(acc_t acc, __m512i x, __m512i weights)
{
    return _mm512_dpbusd_epi32(acc, x, weights);
}

TS_INLINE __m512 to_float(acc_t acc, __m512 scale)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
}

#include "to_bf16_avx512.inc"
#include "tile_avx512.inc"

enum {
    TILE_PIXELS = 14,
    TILE_GROUPS = 4,
    ROW_BYTES = 64,
    STEP_ENTRIES = ROW_BYTES / TS_STEP_BYTES,
    PANEL_ROW_BYTES = TILE_GROUPS * 64, /* of one dword step */
};

/* Tile registers; the intrinsics want literals. 0 to 3 hold the sums of one group each. */
#define PIXELS 4
#define WEIGHTS 5
#define LAST_PIXELS 6
#define LAST_WEIGHTS 7

/* What ldtilecfg reads. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* The compiler does not know that tile instructions read memory: makes it finish its writes to what `memory` is in. */
TS_INLINE void publish(const void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

static void set_shape(tile_config *config, int tile_register, int rows, int row_bytes)
{
    config->rows[tile_register] = (uint8_t)rows;
    config->row_bytes[tile_register] = (uint16_t)row_bytes;
}

static void configure(int pixels, int last_entries)
{
    tile_config config = {.palette = 1};
    for (int n = 0; n < TILE_GROUPS; n++)
        set_shape(&config, n, pixels, TS_GROUP * 4);
    set_shape(&config, PIXELS, pixels, ROW_BYTES);
    set_shape(&config, WEIGHTS, ROW_BYTES / 4, TS_GROUP * 4);
    if (last_entries) {
        set_shape(&config, LAST_PIXELS, pixels, last_entries * TS_STEP_BYTES);
        set_shape(&config, LAST_WEIGHTS, last_entries * 2, TS_GROUP * 4);
    }
    publish(&config);
    _tile_loadconfig(&config);
}

/* Up to eight entries of every pixel, one pixel a row. Reads these entries and nothing else. */
TS_INLINE void gather(const ts_tile *t, const int32_t *offsets, int entries, uint8_t *rows)
{
    const __mmask8 mask = (__mmask8)((1u << entries) - 1);
    const __m256i index = _mm256_maskz_loadu_epi32(mask, offsets);
    for (int m = 0; m < t->pixels; m++) {
        const uint8_t *pixel = m < t->split ? t->input[0] + m * t->pixel_step : t->input[1] + (m - t->split) * t->pixel_step;
        _mm512_store_si512(rows + m * ROW_BYTES, _mm512_mask_i32gather_epi64(_mm512_setzero_si512(), mask, index, pixel, 1));
    }
    publish(rows);
}

#define MULTIPLY_GROUP(group, pixels, panel)                                \
    if (group < t->groups) {                                                \
        _tile_loadd(panel, weights + 64 * group, PANEL_ROW_BYTES);          \
        _tile_dpbusd(group, pixels, panel);                                 \
    }

#define MULTIPLY_STEP(pixels, panel)                                        \
    do {                                                                    \
        _tile_loadd(pixels, rows, ROW_BYTES);                               \
        MULTIPLY_GROUP(0, pixels, panel)                                    \
        MULTIPLY_GROUP(1, pixels, panel)                                    \
        MULTIPLY_GROUP(2, pixels, panel)                                    \
        MULTIPLY_GROUP(3, pixels, panel)                                    \
    } while (0)

/* Sums without bias of all pixels and groups of the tile. */
static void multiply(const ts_tile *t, int32_t (*sums)[TILE_PIXELS][TS_GROUP])
{
    _Alignas(TS_ALIGN) uint8_t rows[TILE_PIXELS * ROW_BYTES];
    const int last_entries = t->entries % STEP_ENTRIES;
    const int32_t *offsets = t->offsets, *last = offsets + t->entries - last_entries;
    const char *weights = t->weights;
    configure(t->pixels, last_entries);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (; offsets < last; offsets += STEP_ENTRIES, weights += STEP_ENTRIES * 2 * PANEL_ROW_BYTES) {
        gather(t, offsets, STEP_ENTRIES, rows);
        MULTIPLY_STEP(PIXELS, WEIGHTS);
    }
    if (last_entries) {
        gather(t, offsets, last_entries, rows);
        MULTIPLY_STEP(LAST_PIXELS, LAST_WEIGHTS);
    }
    _tile_stored(0, sums[0], TS_GROUP * 4);
    _tile_stored(1, sums[1], TS_GROUP * 4);
    _tile_stored(2, sums[2], TS_GROUP * 4);
    _tile_stored(3, sums[3], TS_GROUP * 4);
    _tile_release();
}

TS_INLINE void amx_tile(const ts_tile *t, const int split)
{
    _Alignas(TS_ALIGN) int32_t sums[TILE_GROUPS][TILE_PIXELS][TS_GROUP];
    if (t->pixels < TILE_PIXELS)
        memset(sums, 0, sizeof sums); /* the epilogue computes pixels that it does not store, too */
    multiply(t, sums);
    for (int n = 0; n < t->groups; n++) {
        const acc_t bias = init(t->epilogue->bias, t->channel + TS_GROUP * (size_t)n);
        acc_t acc[TILE_PIXELS];
        TS_UNROLL
        for (int m = 0; m < TILE_PIXELS; m++)
            acc[m] = _mm512_add_epi32(bias, _mm512_load_si512(sums[n][m]));
        if (t->epilogue->plain && t->pixels == TILE_PIXELS)
            finish_group(t, n, acc, TILE_PIXELS, split, 1);
        else
            finish_group(t, n, acc, TILE_PIXELS, split, 0);
    }
}

static void tile_14(const ts_tile *t) { amx_tile(t, TILE_PIXELS); }
static void tile_7_7(const ts_tile *t) { amx_tile(t, 7); }

/* A single pixel leaves 15 of 16 rows idle, so vpdpbusd takes it. */
static void tile_1(const ts_tile *t) { tile(t, 1, TILE_GROUPS, t->pixel_step, 1); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixel_step;
    *capacity = pixels > 1 ? TILE_PIXELS : 1;
    if (split)
        return split == 7 ? tile_7_7 : NULL;
    return pixels > 1 ? tile_14 : tile_1;
}

const ts_kernel ts_conv_u8s8_amx = {
    "u8s8_14x4_amx", TS_CONV, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI | TS_CPU_AMXINT8,
    .conv = {.block = TS_GROUP, .pixels = TILE_PIXELS, .groups = TILE_GROUPS, .select = select_tile},
};
