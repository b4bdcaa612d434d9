/* fp32 with fused multiply-add: 16 multiply-accumulates an instruction. */
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
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(weights), acc);
}

TS_INLINE __m512 to_float(acc_t acc, __m512 scale)
{
    (void)scale;
    return acc;
}

#include "to_bf16_avx512.inc"
#include "tile_avx512.inc"

#define CHANNEL_BYTES 4
#include "tiles_14x2.inc"

const ts_kernel ts_conv_f32_avx512 = {
    "f32_14x2_avx512", TS_CONV, TS_F32, TS_CPU_AVX512,
    .conv = {.block = TS_GROUP, .pixels = TILE_PIXELS, .groups = TILE_GROUPS, .select = select_tile},
};
