#include "kernels/table.h"

#define MULTIPLY(sums, pixels, weights) _tile_dpbusd(sums, pixels, weights)
#include "peak_amx.inc"

const ts_kernel ts_peak_u8s8_amx = {
    "tdpbusd", TS_PEAK, TS_U8, TS_CPU_AVX512 | TS_CPU_AVX512VNNI | TS_CPU_AMXINT8, .peak = {CHAINS * 16384.0, run},
};
