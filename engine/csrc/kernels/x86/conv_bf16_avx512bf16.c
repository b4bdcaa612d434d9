/* bfloat16 pairs into fp32 sums, vdpbf16ps: 32 multiply-accumulates an instruction. */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

typedef __m512 acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm512_loadu_ps((const float *)bias + channel);
}

TS_INLINE acc_t dot(acc_t acc, __m512i x, __m512i weights)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)weights);
}

TS_INLINE __m512 to_float(acc_t acc, __m512 scale)
{
    (void)scale;
    return acc;
}

TS_INLINE __m256i to_bf16(__m512 value)
{
    return (__m256i)_mm512_cvtneps_pbh(value);
}

#include "tile_avx512.inc"

#define CHANNEL_BYTES 2
#include "tiles_14x2.inc"

const ts_kernel ts_conv_bf16_avx512bf16 = {
    "bf16_14x2_avx512bf16", TS_CONV, TS_BF16, TS_CPU_AVX512 | TS_CPU_AVX512BF16,
    .conv = {.block = TS_GROUP, .pixels = TILE_PIXELS, .groups = TILE_GROUPS, .select = select_tile},
};
