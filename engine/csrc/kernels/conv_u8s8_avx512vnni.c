/* u8 activations, s8 weights, vpdpbusd: 64 multiply-accumulates an instruction. */
#include "../kernels.h"
#include "unroll.h"

#include <immintrin.h>

typedef __m512i acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm512_loadu_si512((const int32_t *)bias + channel);
}

TS_INLINE __m512i broadcast(const uint8_t *dword)
{
    return _mm512_set1_epi32(load_dword(dword));
}

TS_INLINE acc_t dot(acc_t acc, __m512i x, __m512i weights)
{
    return _mm512_dpbusd_epi32(acc, x, weights);
}

TS_INLINE __m512 to_float(acc_t acc, __m512 scale)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
}

#include "to_bf16_avx512.inc"
#include "tile_avx512.inc"

#define CHANNEL_BYTES 1
#include "tiles_14x2.inc"

const ts_kernel ts_conv_u8s8_avx512vnni = {
    "u8s8_14x2_avx512vnni", TS_CPU_AVX512 | TS_CPU_AVX512VNNI, TS_U8, TILE_PIXELS, TILE_BLOCKS, TS_PACK_DWORD, select_tile,
};
