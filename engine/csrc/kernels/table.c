#include "kernels/add_kernels.h"
#include "kernels/bf16_int16.h"
#include "kernels/table.h"
#include "kernels/pool_kernels.h"
#include "kernels/quantise_kernels.h"
#include "kernels/winograd.h"

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

static const struct {
    int first_width, last_width;
    const ts_kernel *kernel;
} tuned[] = {
#define TS_TUNED(first, last, row) {first, last, &row},
#include "tuning.def"
#undef TS_TUNED
    {0, 0, NULL},
};

const ts_kernel *ts_choose_kernel(ts_dtype dtype, uint32_t features, int width)
{
    const ts_kernel *first = ts_find_kernel(dtype, features);
    for (int i = 0; tuned[i].kernel; i++) {
        const ts_kernel *kernel = tuned[i].kernel;
        const int family = kernel->dtype == dtype && kernel->features == first->features;
        if (family && width >= tuned[i].first_width && width <= tuned[i].last_width)
            return kernel;
    }
    return first;
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

#define TS_ADD_KERNEL(row) extern const ts_add_kernel row;
#include "adds.def"
#undef TS_ADD_KERNEL

static const ts_add_kernel *const add_kernels[] = {
#define TS_ADD_KERNEL(row) &row,
#include "adds.def"
#undef TS_ADD_KERNEL
};

const ts_add_kernel *ts_find_add_kernel(uint32_t features)
{
    const ts_add_kernel *const *row = add_kernels;
    while (((*row)->features & ~features) != 0)
        row++;
    return *row;
}

#define TS_WINOGRAD_KERNEL(row) extern const ts_winograd_kernel row;
#include "winograds.def"
#undef TS_WINOGRAD_KERNEL

static const ts_winograd_kernel *const winograd_kernels[] = {
#define TS_WINOGRAD_KERNEL(row) &row,
#include "winograds.def"
#undef TS_WINOGRAD_KERNEL
    NULL,
};

const ts_winograd_kernel *ts_find_winograd_kernel(uint32_t features)
{
    const ts_winograd_kernel *const *row = winograd_kernels;
    while (*row && ((*row)->features & ~features) != 0)
        row++;
    return *row;
}

const ts_int16_kernel *ts_find_int16_kernel(uint32_t features)
{
#if defined(__x86_64__)
    extern const ts_int16_kernel ts_conv_bf16_int16_avx2;
    if ((ts_conv_bf16_int16_avx2.features & ~features) == 0)
        return &ts_conv_bf16_int16_avx2;
#endif
    (void)features;
    return NULL;
}

const ts_quantise_kernel *ts_find_quantise_kernel(uint32_t features)
{
#if defined(__x86_64__)
    extern const ts_quantise_kernel ts_quantise_bf16_avx2;
    if ((ts_quantise_bf16_avx2.features & ~features) == 0)
        return &ts_quantise_bf16_avx2;
#endif
    (void)features;
    return NULL;
}
