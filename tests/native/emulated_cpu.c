/* Stands in for run/cpu_detect.c: a CPU that has whatever kernels of this architecture use. */
#include "run/cpu.h"

uint32_t ts_cpu_detect(void)
{
    uint32_t features = 0;
    for (const ts_isa_level *level = ts_isa_levels; level->name; level++)
        features |= level->features;
    return features;
}
