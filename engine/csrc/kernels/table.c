#include "kernels/table.h"

const ts_kernel *const ts_kernels[] = {
#define TS_KERNEL(row) &row,
#include "kernels/kernels.def"
#undef TS_KERNEL
    NULL,
};

const ts_kernel *ts_find_kernel(ts_kernel_kind kind, ts_dtype dtype, uint32_t features)
{
    const ts_kernel *const *row = ts_kernels;
    while (*row && ((*row)->kind != kind || (*row)->dtype != dtype || ((*row)->features & ~features) != 0))
        row++;
    return *row;
}

static const struct {
    int first_width, last_width;
    const ts_kernel *kernel;
} tuned[] = {
#define TS_TUNED(first, last, row) {first, last, &row},
#include "kernels/tuning.def"
#undef TS_TUNED
    {0, 0, NULL},
};

const ts_kernel *ts_choose_conv_kernel(ts_dtype dtype, uint32_t features, int width)
{
    const ts_kernel *first = ts_find_kernel(TS_CONV, dtype, features);
    for (int i = 0; tuned[i].kernel; i++) {
        const ts_kernel *kernel = tuned[i].kernel;
        const int family = kernel->dtype == dtype && kernel->features == first->features;
        if (family && width >= tuned[i].first_width && width <= tuned[i].last_width)
            return kernel;
    }
    return first;
}
