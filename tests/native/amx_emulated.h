/*
 * The AMX tile instructions in plain C, under the names of their intrinsics and as strict as the hardware: what would
 * fault there ends the test here. Stands in for the real ones where conv_u8s8_amx.c is compiled with TS_EMULATED.
 */
#ifndef AMX_EMULATED_H
#define AMX_EMULATED_H

#include "check.h"

#include <immintrin.h>
#include <stddef.h>
#include <string.h>

enum { TILE_REGISTERS = 8, TILE_ROWS = 16, TILE_ROW_BYTES = 64 };

static _Thread_local struct {
    int configured;
    int rows[TILE_REGISTERS], row_bytes[TILE_REGISTERS];
    uint8_t data[TILE_REGISTERS][TILE_ROWS][TILE_ROW_BYTES];
} amx;

static void emulated_loadconfig(const void *memory)
{
    const uint8_t *config = memory;
    CHECK(!amx.configured, "an earlier call did not release its tiles");
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
        }
    }
    memset(amx.data, 0, sizeof amx.data);
    amx.configured = 1;
}

static void emulated_release(void)
{
    memset(&amx, 0, sizeof amx);
}

static void check_usable(int tile)
{
    CHECK(amx.configured && amx.rows[tile], "register %d is not configured", tile);
}

static void emulated_zero(int tile)
{
    check_usable(tile);
    memset(amx.data[tile], 0, sizeof amx.data[tile]);
}

static void emulated_load(int tile, const void *base, ptrdiff_t stride)
{
    emulated_zero(tile);
    for (int row = 0; row < amx.rows[tile]; row++)
        memcpy(amx.data[tile][row], (const uint8_t *)base + row * stride, (size_t)amx.row_bytes[tile]);
}

static void emulated_store(int tile, void *base, ptrdiff_t stride)
{
    check_usable(tile);
    for (int row = 0; row < amx.rows[tile]; row++)
        memcpy((uint8_t *)base + row * stride, amx.data[tile][row], (size_t)amx.row_bytes[tile]);
}

static int32_t four_products(const uint8_t *unsigned_bytes, const uint8_t *signed_bytes)
{
    int32_t sum = 0;
    for (int i = 0; i < 4; i++)
        sum += unsigned_bytes[i] * (int8_t)signed_bytes[i];
    return sum;
}

/* sums += a * b, a unsigned, b signed. */
static void emulated_dot(int sums, int a, int b)
{
    check_usable(sums);
    check_usable(a);
    check_usable(b);
    CHECK(sums != a && sums != b && a != b, "registers %d, %d and %d must differ", sums, a, b);
    CHECK(amx.rows[sums] == amx.rows[a] && amx.row_bytes[sums] == amx.row_bytes[b] && amx.row_bytes[a] == 4 * amx.rows[b],
          "shapes of registers %d, %d and %d do not match", sums, a, b);
    for (int m = 0; m < amx.rows[sums]; m++)
        for (int k = 0; k < amx.rows[b]; k++)
            for (int n = 0; n < amx.row_bytes[sums] / 4; n++) {
                int32_t sum;
                memcpy(&sum, amx.data[sums][m] + 4 * n, sizeof sum);
                sum += four_products(amx.data[a][m] + 4 * k, amx.data[b][k] + 4 * n);
                memcpy(amx.data[sums][m] + 4 * n, &sum, sizeof sum);
            }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_zero emulated_zero
#define _tile_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_dpbusd emulated_dot

#endif
