/*
 * bfloat16 on AVX2, which has no instruction for it: a bfloat16 is the upper half of a float, so a shift and a mask cut
 * a pair into two floats, and fp32 FMA multiplies them: the speed of fp32 with half its memory traffic.
 */
#include "kernels/table.h"
#include "kernels/unroll.h"

#include <immintrin.h>

enum { WEIGHT_BYTES = 64, PARTS = 2 }; /* [16 lanes][2] bf16; the parts are the two channels of the pair */

typedef __m256 acc_t;

TS_INLINE acc_t init(const void *bias, size_t channel)
{
    return _mm256_loadu_ps((const float *)bias + channel);
}

TS_INLINE __m256 to_float(acc_t acc, __m256 scale)
{
    (void)scale;
    return acc;
}

TS_INLINE __m256 channel_of_pair(__m256i pairs, int channel)
{
    return _mm256_castsi256_ps(channel ? _mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u))
                                       : _mm256_slli_epi32(pairs, 16));
}

TS_INLINE acc_t pixel_part(const uint8_t *dword, int part)
{
    return channel_of_pair(_mm256_set1_epi32(load_dword(dword)), part);
}

TS_INLINE acc_t weight_part(const char *weights, int part, int half)
{
    return channel_of_pair(_mm256_load_si256((const __m256i *)(const void *)weights + half), part);
}

TS_INLINE acc_t multiply(acc_t acc, acc_t x, acc_t weights)
{
    return _mm256_fmadd_ps(x, weights, acc);
}

#include "tile_avx2.inc"

const ts_kernel ts_conv_bf16_avx2 = {
    "bf16_6x1_avx2", TS_CONV, TS_BF16, TS_CPU_AVX2,
    .conv = {.block = TS_GROUP, .pixels = 6, .groups = 1, .select = select_tile, .join = join_tile},
};
