/* The kernel table: every kernel of every kind is one row of kernels.def. */
#ifndef TS_TABLE_H
#define TS_TABLE_H

#include "kernels/bf16_int16.h"
#include "kernels/contract.h"
#include "kernels/elementwise.h"
#include "kernels/matrix.h"
#include "kernels/resampling.h"
#include "kernels/winograd.h"
#include "run/cpu.h"

/* What a kernel does, and so which member of its row's union holds it. */
typedef enum {
    TS_CONV,         /* conv: tiles of a convolution. TS_U8 means s8 weights and s32 accumulation */
    TS_DEPTHWISE,    /* conv: tiles of a convolution of each channel by itself; the reduction is its taps, see conv/depthwise.c */
    TS_MATRIX,       /* matrix: convolutions on a matrix unit */
    TS_INT16,        /* int16: bfloat16 convolutions in 16-bit whole numbers */
    TS_WINOGRAD,     /* winograd */
    TS_MAXIMUM,      /* maximum: pooling */
    TS_MAXIMUM_WIDE, /* maximum: the same for TS_WIDE_GROUPS groups that lie side by side */
    TS_ADDITION,     /* addition: a residual addition that no convolution could take */
    TS_QUANTISATION, /* quantisation: of floats for the integer layers behind them */
    TS_PRODUCT,      /* product: of images, or of an image and gates */
    TS_CURVE,        /* curve: a function of each value */
    TS_RESAMPLING,   /* resample: of decoded pictures */
    TS_PEAK,         /* peak: the best products that the CPU has, in registers */
    TS_STREAM,       /* stream: the widest loads that the CPU has, from end to end */
} ts_kernel_kind;

typedef struct {
    double macs;                      /* multiply-accumulates of one iteration */
    float (*run)(int64_t iterations); /* the result depends on every iteration */
} ts_peak;

/* Reads `count` bytes, a multiple of 256, aligned to 64; the result depends on every byte. */
typedef float (*ts_stream_fn)(const uint8_t *bytes, size_t count);

typedef struct {
    const char *name;
    ts_kernel_kind kind;
    ts_dtype dtype;    /* of what it reads */
    uint32_t features; /* TS_CPU_* bits it needs */
    union {
        ts_conv_kernel conv;
        ts_matrix_kernel matrix;
        ts_int16_kernel int16;
        ts_winograd_kernel winograd;
        ts_maximum_fn maximum;
        ts_addition_fn addition;
        ts_quantisation_fn quantisation;
        ts_product_fn product;
        ts_curve_fn curve;
        ts_resample_kernel resample;
        ts_peak peak;
        ts_stream_fn stream;
    };
} ts_kernel;

#define TS_KERNEL(row) extern const ts_kernel row;
#include "kernels/kernels.def"
#undef TS_KERNEL

/* All rows in order of preference; ends with null. */
extern const ts_kernel *const ts_kernels[];

/* The preferred kernel for these CPU features; null where none is there. Only the kinds of TS_MATRIX, TS_INT16, TS_WINOGRAD and
 * TS_QUANTISATION have no scalar ones, and TS_PRODUCT and TS_CURVE none of some dtypes. */
const ts_kernel *ts_find_kernel(ts_kernel_kind kind, ts_dtype dtype, uint32_t features);

/* The preferred TS_CONV kernel, or the row of its family that tuning.def names for rows of `width` output pixels. */
const ts_kernel *ts_choose_conv_kernel(ts_dtype dtype, uint32_t features, int width);

#endif
