#include "amx_emulated.h"
#include "check.h"

#include <stdatomic.h>
#include <string.h>

enum { TILE_REGISTERS = 8, TILE_ROWS = 16, TILE_ROW_BYTES = 64, HASTE = 3, CONFIGURATION_BYTES = 64 };

static _Thread_local struct {
    uint8_t configuration[CONFIGURATION_BYTES]; /* all zero: none */
    int rows[TILE_REGISTERS], row_bytes[TILE_REGISTERS];
    uint8_t data[TILE_REGISTERS][TILE_ROWS][TILE_ROW_BYTES];
    int64_t products, last_product[TILE_REGISTERS]; /* counted from 1; 0: none since the tile was configured */
} amx;

static struct {
    _Atomic int64_t products, loads, streamed, stores, hasty_stores, configurations;
} counters;

amx_counts amx_counted(void)
{
    return (amx_counts){counters.products, counters.loads, counters.streamed, counters.stores, counters.hasty_stores,
                        counters.configurations};
}

void amx_reset_counts(void)
{
    counters.products = counters.loads = counters.streamed = counters.stores = counters.hasty_stores = counters.configurations = 0;
}

void amx_loadconfig(const void *memory)
{
    const uint8_t *config = memory;
    CHECK(config[0] == 1 && config[1] == 0, "palette %d, start row %d", config[0], config[1]);
    for (int i = 2; i < 16; i++)
        CHECK(config[i] == 0, "reserved byte %d is %d", i, config[i]);
    for (int i = 0; i < 16; i++) {
        const int row_bytes = config[16 + 2 * i] | config[17 + 2 * i] << 8, rows = config[48 + i];
        CHECK(rows <= TILE_ROWS && row_bytes <= TILE_ROW_BYTES && !rows == !row_bytes, "register %d: %d rows of %d bytes", i,
              rows, row_bytes);
        CHECK(i < TILE_REGISTERS || !rows, "register %d does not exist", i);
        if (i < TILE_REGISTERS) {
            amx.rows[i] = rows;
            amx.row_bytes[i] = row_bytes;
            amx.last_product[i] = 0;
        }
    }
    memset(amx.data, 0, sizeof amx.data);
    memcpy(amx.configuration, config, sizeof amx.configuration);
    counters.configurations++;
}

void amx_storeconfig(void *memory)
{
    memcpy(memory, amx.configuration, sizeof amx.configuration);
}

void amx_release(void)
{
    memset(&amx, 0, sizeof amx);
}

static void check_usable(int tile)
{
    CHECK(amx.configuration[0] && amx.rows[tile], "register %d is not configured", tile);
}

void amx_zero(int tile)
{
    check_usable(tile);
    memset(amx.data[tile], 0, sizeof amx.data[tile]);
    amx.last_product[tile] = 0;
}

static void load(int tile, const void *base, ptrdiff_t stride)
{
    amx_zero(tile);
    for (int row = 0; row < amx.rows[tile]; row++)
        memcpy(amx.data[tile][row], (const uint8_t *)base + row * stride, (size_t)amx.row_bytes[tile]);
}

void amx_load(int tile, const void *base, ptrdiff_t stride)
{
    load(tile, base, stride);
    counters.loads++;
}

void amx_stream_load(int tile, const void *base, ptrdiff_t stride)
{
    load(tile, base, stride);
    counters.streamed++;
}

void amx_store(int tile, void *base, ptrdiff_t stride)
{
    check_usable(tile);
    for (int row = 0; row < amx.rows[tile]; row++)
        memcpy((uint8_t *)base + row * stride, amx.data[tile][row], (size_t)amx.row_bytes[tile]);
    counters.stores++;
    counters.hasty_stores += amx.last_product[tile] && amx.products - amx.last_product[tile] < HASTE;
}

static void begin_product(int sums, int a, int b)
{
    check_usable(sums);
    check_usable(a);
    check_usable(b);
    CHECK(sums != a && sums != b && a != b, "registers %d, %d and %d must differ", sums, a, b);
    CHECK(amx.rows[sums] == amx.rows[a] && amx.row_bytes[sums] == amx.row_bytes[b] && amx.row_bytes[a] == 4 * amx.rows[b],
          "shapes of registers %d, %d and %d do not match", sums, a, b);
    amx.last_product[sums] = ++amx.products;
    counters.products++;
}

enum { QUARTERS = 4 }; /* of a row of 16 columns */

/* sums += a * b, a unsigned, b signed: exact products of 16 bits, added in pairs, which are added at the end. */
void amx_dpbusd(int sums, int a, int b)
{
    begin_product(sums, a, b);
    __m256i weights[TILE_ROWS][QUARTERS];
    for (int k = 0; k < amx.rows[b]; k++)
        for (int q = 0; q < QUARTERS; q++)
            weights[k][q] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(amx.data[b][k] + 16 * q)));
    for (int m = 0; m < amx.rows[sums]; m++) {
        __m256i pairs[QUARTERS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int k = 0; k < amx.rows[b]; k++) {
            const uint8_t *x = amx.data[a][m] + 4 * k;
            const __m256i pixels = _mm256_set1_epi64x((int64_t)x[0] | (int64_t)x[1] << 16 | (int64_t)x[2] << 32 | (int64_t)x[3] << 48);
            for (int q = 0; q < QUARTERS; q++)
                pairs[q] = _mm256_add_epi32(pairs[q], _mm256_madd_epi16(pixels, weights[k][q]));
        }
        int32_t row[16], all[8 * QUARTERS];
        memcpy(row, amx.data[sums][m], sizeof row);
        memcpy(all, pairs, sizeof all);
        for (int n = 0; n < 16; n++)
            row[n] += all[2 * n] + all[2 * n + 1];
        memcpy(amx.data[sums][m], row, (size_t)amx.row_bytes[sums]);
    }
}

static float bf16_at(const uint8_t *bytes)
{
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    const uint32_t bits = (half & 0x7f80) ? (uint32_t)half << 16 : (uint32_t)(half & 0x8000) << 16; /* denormals are zero */
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* sums += a * b in pairs of bfloat16, added to single precision in order. */
void amx_dpbf16(int sums, int a, int b)
{
    begin_product(sums, a, b);
    for (int m = 0; m < amx.rows[sums]; m++)
        for (int k = 0; k < amx.rows[b]; k++)
            for (int n = 0; n < amx.row_bytes[sums] / 4; n++) {
                float sum;
                memcpy(&sum, amx.data[sums][m] + 4 * n, sizeof sum);
                for (int i = 0; i < 4; i += 2)
                    sum += bf16_at(amx.data[a][m] + 4 * k + i) * bf16_at(amx.data[b][k] + 4 * n + i);
                memcpy(amx.data[sums][m] + 4 * n, &sum, sizeof sum);
            }
}
