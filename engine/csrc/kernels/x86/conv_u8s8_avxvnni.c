/*
 * u8 activations, s8 weights with the 256-bit VEX form of vpdpbusd, for cores that have VNNI but no AVX-512: 32
 * multiply-accumulates an instruction. 6 pixels by 16 channels: 12 accumulators, two weight halves and one broadcast
 * of the 16 registers. A packed dword of a block is 64 bytes, two halves, so the weights are those of AVX-512 VNNI.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { WEIGHT_BYTES = 64, PARTS = 1 }; /* [16 lanes][4] s8 */

typedef __m256i acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)((const int32_t *)bias + channel));
}

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale);
}

TS_INLINE acc_t pixel_part(const uint8_t *dword, int part)
{
    (void)part;
    return _mm256_set1_epi32(load_dword(dword));
}

TS_INLINE acc_t weight_part(const char *weights, int part, int half)
{
    (void)part;
    return _mm256_load_si256((const __m256i *)(const void *)weights + half);
}

TS_INLINE acc_t multiply(acc_t acc, acc_t x, acc_t weights)
{
    return _mm256_dpbusd_avx_epi32(acc, x, weights);
}

#include "tile_avx2.inc"

const ts_kernel ts_conv_u8s8_avxvnni = {
    "u8s8_6x1_avxvnni", TS_CONV, TS_U8, TS_CPU_AVX2 | TS_CPU_AVXVNNI,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile, .join = join_tile},
};
