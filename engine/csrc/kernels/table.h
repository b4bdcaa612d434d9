/* The kernel table. */
#ifndef TS_TABLE_H
#define TS_TABLE_H

#include "run/cpu.h"
#include "kernels/contract.h"

#define TS_KERNEL(row) extern const ts_kernel row;
#include "kernels.def"
#undef TS_KERNEL

/* All rows in order of preference; ends with null. */
extern const ts_kernel *const ts_kernels[];

/* The preferred kernel of a dtype for these CPU features; never null (scalar rows need none). */
const ts_kernel *ts_find_kernel(ts_dtype dtype, uint32_t features);

/* The same family's row that tuning.def names for rows of `width` output pixels. */
const ts_kernel *ts_choose_kernel(ts_dtype dtype, uint32_t features, int width);

#endif
