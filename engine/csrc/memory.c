#define _GNU_SOURCE
#include "memory.h"

#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

void *ts_pages_new(size_t bytes)
{
    void *pages = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_PAGE)
        (void)madvise(pages, bytes, MADV_HUGEPAGE); /* a wish: kernels without huge pages refuse it harmlessly */
#endif
    return pages;
}

void ts_pages_free(void *pages, size_t bytes)
{
    if (pages)
        munmap(pages, bytes ? bytes : 1);
}
