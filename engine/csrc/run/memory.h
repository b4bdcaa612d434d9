/* Large zeroed memory on huge pages where the kernel allows: weights of 25 MB overflow the TLB on 4 KB pages. */
#ifndef TS_MEMORY_H
#define TS_MEMORY_H

#include <stddef.h>

void *ts_pages_new(size_t bytes);
void ts_pages_free(void *pages, size_t bytes);

/* Many allocations side by side, freed together. */
typedef struct ts_region ts_region;

/* Zeroed, aligned to 64 bytes; null when memory runs out. `*region` starts as null. */
void *ts_region_take(ts_region **region, size_t bytes);
/* Takes back what was taken last. */
void ts_region_give(ts_region *region, void *taken, size_t bytes);
void ts_region_free(ts_region *region);

/* Gives what free() keeps for later back to the system, where the C library can. */
void ts_heap_trim(void);

#endif
