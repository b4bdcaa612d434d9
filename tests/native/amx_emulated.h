/*
 * The AMX tile instructions in plain C, under the names of their intrinsics and as strict as the hardware: what would
 * fault there ends the test here. Included before everything else in a kernel file, so that the file needs no change.
 *
 * It counts what decides the time on real hardware, so that tests can hold it where no clock can be asked.
 */
#ifndef AMX_EMULATED_H
#define AMX_EMULATED_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t products;
    int64_t loads;        /* tileloadd */
    int64_t streamed;     /* tileloaddt1 */
    int64_t stores;
    int64_t hasty_stores; /* of a tile within three products of its last one: each waits until the product is through */
    int64_t configurations;
} amx_counts;

/* Of all threads since the last reset. */
amx_counts amx_counted(void);
void amx_reset_counts(void);

void amx_loadconfig(const void *memory);
void amx_storeconfig(void *memory);
void amx_release(void);
void amx_zero(int tile);
void amx_load(int tile, const void *base, ptrdiff_t stride);
void amx_stream_load(int tile, const void *base, ptrdiff_t stride);
void amx_store(int tile, void *base, ptrdiff_t stride);
void amx_dpbusd(int sums, int a, int b);
void amx_dpbf16(int sums, int a, int b);

#undef _tile_loadconfig
#undef _tile_storeconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig amx_loadconfig
#define _tile_storeconfig amx_storeconfig
#define _tile_release amx_release
#define _tile_zero amx_zero
#define _tile_loadd amx_load
#define _tile_stream_loadd amx_stream_load
#define _tile_stored amx_store
#define _tile_dpbusd amx_dpbusd
#define _tile_dpbf16ps amx_dpbf16

#endif
