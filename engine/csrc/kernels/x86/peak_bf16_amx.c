#include "kernels/table.h"

#define MULTIPLY(sums, pixels, weights) _tile_dpbf16ps(sums, pixels, weights)
#include "peak_amx.inc"

const ts_kernel ts_peak_bf16_amx = {
    "tdpbf16ps", TS_PEAK, TS_BF16, TS_CPU_AVX512 | TS_CPU_AVX512BF16 | TS_CPU_AMXBF16, .peak = {CHAINS * 8192.0, run},
};
