/* Large zeroed memory: page-aligned, on huge pages where the kernel allows. */
#ifndef TS_MEMORY_H
#define TS_MEMORY_H

#include <stddef.h>

void *ts_pages_new(size_t bytes);
void ts_pages_free(void *pages, size_t bytes);

#endif
