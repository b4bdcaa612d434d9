#include "kernels.h"
#include "pool_kernels.h"

const ts_kernel *const ts_kernels[] = {
#define TS_KERNEL(row) &row,
#include "kernels.def"
#undef TS_KERNEL
    NULL,
};

const ts_kernel *ts_find_kernel(ts_dtype dtype, uint32_t features)
{
    const ts_kernel *const *row = ts_kernels;
    while ((*row)->dtype != dtype || ((*row)->features & ~features) != 0)
        row++;
    return *row;
}

#define TS_MAX_KERNEL(row) extern const ts_max_kernel row;
#include "pools.def"
#undef TS_MAX_KERNEL

static const ts_max_kernel *const max_kernels[] = {
#define TS_MAX_KERNEL(row) &row,
#include "pools.def"
#undef TS_MAX_KERNEL
};

const ts_max_kernel *ts_find_max_kernel(ts_dtype dtype, uint32_t features)
{
    const ts_max_kernel *const *row = max_kernels;
    while ((*row)->dtype != dtype || ((*row)->features & ~features) != 0)
        row++;
    return *row;
}
