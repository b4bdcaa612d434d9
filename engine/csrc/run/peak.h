/* How many multiply-accumulates a second this machine reaches when nothing leaves the registers. */
#ifndef TS_PEAK_H
#define TS_PEAK_H

#include "layout/dtype.h"

/*
 * The best of several short runs of the preferred loop for `dtype` (TS_U8 means u8 x s8), all `threads` at once.
 * MAC/s; -1 when the level is unknown.
 */
double ts_measure_peak(ts_dtype dtype, int threads, const char *level);

#endif
