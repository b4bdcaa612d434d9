/*
 * AVX-512 and AVX-VNNI where the CPU has neither: SIMDe, and what it lacks of what the kernels use. Included before
 * everything else in a kernel file, so that the file itself needs no change.
 */
#ifndef AVX512_EMULATED_H
#define AVX512_EMULATED_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define TS_PIN(vector) (void)(vector) /* kernels/unroll.h */

#include <string.h>

/* Halves and bytes of vectors, lane by lane. */
#define EMULATED_LANES(result, source, out_type, in_type, count, expression)                  \
    do {                                                                                       \
        in_type in_[count];                                                                    \
        out_type out_[count];                                                                  \
        memcpy(in_, &(source), sizeof in_);                                                    \
        for (int i_ = 0; i_ < count; i_++) {                                                   \
            const in_type x = in_[i_];                                                         \
            out_[i_] = (out_type)(expression);                                                 \
        }                                                                                      \
        memcpy(&(result), out_, sizeof out_);                                                  \
    } while (0)

static inline simde__m512 emulated_cvtepi32_ps(simde__m512i a)
{
    simde__m512 r;
    EMULATED_LANES(r, a, float, int32_t, 16, x);
    return r;
}

/* Rounds to nearest even; what fits no int32 becomes INT32_MIN, as in hardware. */
static inline simde__m512i emulated_cvtps_epi32(simde__m512 a)
{
    simde__m512i r;
    __m256 source[2];
    memcpy(source, &a, sizeof source);
    const __m256i half[] = {_mm256_cvtps_epi32(source[0]), _mm256_cvtps_epi32(source[1])};
    memcpy(&r, half, sizeof half);
    return r;
}

static inline __m256i emulated_cvtepi32_epi16(simde__m512i a)
{
    __m256i r;
    EMULATED_LANES(r, a, uint16_t, uint32_t, 16, x);
    return r;
}

static inline simde__m512i emulated_cvtepu16_epi32(__m256i a)
{
    simde__m512i r;
    EMULATED_LANES(r, a, uint32_t, uint16_t, 16, x);
    return r;
}

static inline simde__m512i emulated_cvtepu8_epi32(__m128i a)
{
    simde__m512i r;
    EMULATED_LANES(r, a, uint32_t, uint8_t, 16, x);
    return r;
}

static inline simde__m512i emulated_cvtepu8_epi16(__m256i a)
{
    simde__m512i r;
    EMULATED_LANES(r, a, uint16_t, uint8_t, 32, x);
    return r;
}

static inline simde__m512i emulated_srai_epi32(simde__m512i a, unsigned count)
{
    simde__m512i r;
    EMULATED_LANES(r, a, int32_t, int32_t, 16, x >> count);
    return r;
}

/* Saturates. */
static inline __m128i emulated_cvtusepi32_epi8(simde__m512i a)
{
    __m128i r;
    EMULATED_LANES(r, a, uint8_t, uint32_t, 16, x > 255 ? 255 : x);
    return r;
}

/* Rounds to nearest even; not-a-number stays one; denormals are flushed. */
static inline __m256i emulated_cvtneps_pbh(simde__m512 a)
{
    __m256i r;
    EMULATED_LANES(r, a, uint16_t, uint32_t, 16,
                   (x & 0x7f800000) == 0   ? (x & 0x80000000) >> 16
                   : (x & 0x7fffffff) > 0x7f800000 ? x >> 16 | 0x40
                                           : (x + 0x7fff + (x >> 16 & 1)) >> 16);
    return r;
}

#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtps_epi32
#undef _mm512_cvtepi32_epi16
#undef _mm512_cvtepu16_epi32
#undef _mm512_madd_epi16 /* which Debian 12's SIMDe gives the parameters of another instruction */
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtepu8_epi16 emulated_cvtepu8_epi16
#define _mm512_cvtusepi32_epi8 emulated_cvtusepi32_epi8
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 emulated_srai_epi32
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#define _mm512_cvtneps_pbh emulated_cvtneps_pbh
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
#define _mm256_dpwssd_avx_epi32 simde_mm256_dpwssd_epi32

#endif
