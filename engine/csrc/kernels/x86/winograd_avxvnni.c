/* Winograd's F(4x4, 3x3) with the 256-bit VEX form of vpdpwssd: half the products of vpdpbusd, of which it needs a quarter. */
#include "kernels/unroll.h"

#include <immintrin.h>

TS_INLINE __m256i multiply_add(__m256i acc, __m256i x, __m256i weights)
{
    return _mm256_dpwssd_avx_epi32(acc, x, weights);
}

#include "winograd_256.inc"

const ts_kernel ts_winograd_avxvnni = {
    "u8s8_winograd_avxvnni", TS_WINOGRAD, TS_U8, TS_CPU_AVX2 | TS_CPU_AVXVNNI, .winograd = WINOGRAD_KERNEL(24 << 20, 60),
};
