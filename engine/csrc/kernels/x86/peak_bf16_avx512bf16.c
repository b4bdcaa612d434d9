/* vdpbf16ps. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 16 };

typedef __m512 acc_t;
typedef __m512i operand_t;

TS_INLINE acc_t start(int chain)
{
    return _mm512_set1_ps((float)chain);
}

TS_INLINE operand_t left(void)
{
    return _mm512_set1_epi32(0x3f803f80);
}

TS_INLINE operand_t right(int odd)
{
    return _mm512_set1_epi32(odd ? 0x3f803f80 : 0);
}

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = _mm512_dpbf16_ps(*acc, (__m512bh)*x, (__m512bh)w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_bf16_avx512bf16 = {
    "vdpbf16ps zmm", TS_PEAK, TS_BF16, TS_CPU_AVX512 | TS_CPU_AVX512BF16, .peak = {CHAINS * 32.0, run},
};
