/* tdpbusd on 6 independent tiles of sums: the two others are its operands. */
#include "kernels/table.h"

#include <immintrin.h>

enum { CHAINS = 6, ROWS = 16, ROW_BYTES = 64 };

/* What ldtilecfg reads: all eight tiles at their largest. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} largest = {
    .palette = 1,
    .row_bytes = {ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES},
    .rows = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS},
};

static float run(int64_t iterations)
{
    int32_t lanes[ROWS * ROW_BYTES / 4];
    uint8_t operand[ROWS * ROW_BYTES];
    for (int i = 0; i < ROWS * ROW_BYTES; i++)
        operand[i] = (uint8_t)(iterations & 1);
    /* The compiler does not know that tile instructions read memory. */
    __asm__ volatile("" : : "r"(operand), "r"(&largest) : "memory");
    _tile_loadconfig(&largest);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_loadd(6, operand, ROW_BYTES);
    _tile_loadd(7, operand, ROW_BYTES);
    for (int64_t i = 0; i < iterations; i++) {
        _tile_dpbusd(0, 6, 7);
        _tile_dpbusd(1, 6, 7);
        _tile_dpbusd(2, 6, 7);
        _tile_dpbusd(3, 6, 7);
        _tile_dpbusd(4, 6, 7);
        _tile_dpbusd(5, 6, 7);
    }
    _tile_stored(0, lanes, ROW_BYTES); /* the instructions are volatile: the other sums need no reader */
    _tile_release();
    return (float)lanes[0];
}

const ts_kernel ts_peak_u8s8_amx = {
    "tdpbusd", TS_PEAK, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI | TS_CPU_AMXINT8, .peak = {CHAINS * 16384.0, run},
};
