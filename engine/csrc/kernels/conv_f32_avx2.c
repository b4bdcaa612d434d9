/* fp32 with AVX2 and FMA: 6 pixels by 16 channels in 12 of the 16 registers. */
#include "../kernels.h"
#include "unroll.h"

#include <immintrin.h>

enum { WEIGHT_BYTES = 64 };

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

TS_INLINE void multiply(acc_t *acc, int32_t dword, const char *weights)
{
    const __m256 x = _mm256_castsi256_ps(_mm256_set1_epi32(dword));
    const float *w = (const float *)(const void *)weights;
    acc[0] = _mm256_fmadd_ps(x, _mm256_load_ps(w), acc[0]);
    acc[1] = _mm256_fmadd_ps(x, _mm256_load_ps(w + 8), acc[1]);
}

#include "tile_avx2.inc"

static void tile_6(const ts_tile *t) { tile(t, 6); }
static void tile_1(const ts_tile *t) { tile(t, 1); }

static ts_tile_fn select_tile(int pixels, ptrdiff_t pixel_step, int split, int *capacity)
{
    (void)pixel_step;
    if (split)
        return NULL;
    *capacity = pixels > 1 ? 6 : 1;
    return pixels > 1 ? tile_6 : tile_1;
}

const ts_kernel ts_conv_f32_avx2 = {"f32_6x1_avx2", TS_CPU_AVX2, TS_F32, 6, 1, TS_PACK_DWORD, select_tile};
