#include "kernels.h"

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
