/* Winograd's F(4x4, 3x3) on AVX2, whose products and sums are two instructions. */
#include "kernels/unroll.h"

#include <immintrin.h>

TS_INLINE __m256i multiply_add(__m256i acc, __m256i x, __m256i weights)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(x, weights));
}

#include "winograd_256.inc"

const ts_kernel ts_winograd_avx2 = {
    "u8s8_winograd_avx2", TS_WINOGRAD, TS_U8, TS_CPU_AVX2, .winograd = WINOGRAD_KERNEL(24 << 20, 40),
};
