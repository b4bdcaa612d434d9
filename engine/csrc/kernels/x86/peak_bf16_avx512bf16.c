/* vdpbf16ps. */
#include "kernels/unroll.h"

#include <immintrin.h>

enum { CHAINS = 16 };

typedef __m512 acc_t;
typedef float sum_t;
typedef __m512i operand_t;
typedef uint32_t value_t;

#define LEFT 0x3f803f80
#define RIGHT(odd) ((odd) ? 0x3f803f80 : 0)

TS_INLINE void multiply(acc_t *acc, operand_t *x, operand_t w)
{
    *acc = _mm512_dpbf16_ps(*acc, (__m512bh)*x, (__m512bh)w);
}

#include "kernels/peak.inc"

const ts_kernel ts_peak_bf16_avx512bf16 = {
    "vdpbf16ps zmm", TS_PEAK, TS_BF16, TS_CPU_AVX512 | TS_CPU_AVX512BF16, .peak = {CHAINS * 32.0, run},
};
