/* The limits of this machine, measured: products in registers, and reading of memory. */
#ifndef TS_PEAK_H
#define TS_PEAK_H

#include <stddef.h>

#include "layout/dtype.h"

/*
 * The best of several short runs of the preferred loop for `dtype` (TS_U8 means u8 x s8), all `threads` at once.
 * MAC/s; -1 when the level is unknown.
 */
double ts_measure_peak(ts_dtype dtype, int threads, const char *level);

/*
 * The same for reading: each of `threads` threads reads `bytes` > 0 of its own, over and over, by the widest loads. Bytes/s of
 * all together; 0 when memory runs out, -1 when the level is unknown.
 */
double ts_measure_reads(size_t bytes, int threads, const char *level);

#endif
