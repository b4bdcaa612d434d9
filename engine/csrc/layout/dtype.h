/* Element types, and the one number that all layouts and kernels share. */
#ifndef TS_DTYPE_H
#define TS_DTYPE_H

typedef enum { TS_U8 = 0, TS_F32 = 1, TS_BF16 = 2 } ts_dtype;

enum {
    TS_DTYPES = 3,
    TS_GROUP = 16, /* channels that are computed together: the accumulators of one vector. C0 is a multiple of it. */
};

static inline int ts_element_bytes(ts_dtype dtype)
{
    return dtype == TS_U8 ? 1 : dtype == TS_BF16 ? 2 : 4;
}

#endif
