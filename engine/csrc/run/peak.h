/* How many multiply-accumulates a second this machine reaches when nothing leaves the registers. */
#ifndef TS_PEAK_H
#define TS_PEAK_H

#include "kernels/contract.h"

typedef struct {
    const char *name;
    uint32_t features;
    ts_dtype dtype;
    double macs;              /* of one iteration */
    float (*run)(int64_t iterations); /* the result depends on every iteration */
} ts_peak_loop;

/*
 * The best of several short runs of the preferred loop for `dtype` (TS_U8 means u8 x s8), all `threads` at once.
 * MAC/s; -1 when the level is unknown.
 */
double ts_measure_peak(ts_dtype dtype, int threads, const char *level);

#endif
