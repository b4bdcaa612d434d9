#define _GNU_SOURCE
#include "run/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)
#define REGION_BLOCK ((size_t)32 << 20) /* address space; memory is taken page by page as it is written */

struct ts_region {
    ts_region *older;
    unsigned char *memory;
    size_t size, used;
};

static void *map(size_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

/* Huge pages exist only where a whole aligned 2 MB lies inside a mapping: cut one out of a larger mapping. */
static void *map_aligned(size_t bytes)
{
    unsigned char *pages = map(bytes + HUGE_PAGE);
    if (!pages)
        return NULL;
    const size_t before = (HUGE_PAGE - (uintptr_t)pages % HUGE_PAGE) % HUGE_PAGE;
    if (before)
        munmap(pages, before);
    munmap(pages + before + bytes, HUGE_PAGE - before);
#ifdef MADV_HUGEPAGE
    (void)madvise(pages + before, bytes, MADV_HUGEPAGE); /* a wish: kernels without huge pages refuse it harmlessly */
#endif
    return pages + before;
}

static size_t rounded(size_t bytes)
{
    const size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : 4096;
    return bytes ? (bytes + unit - 1) / unit * unit : unit;
}

void *ts_pages_new(size_t bytes)
{
    return bytes >= HUGE_PAGE ? map_aligned(rounded(bytes)) : map(rounded(bytes));
}

void ts_pages_free(void *pages, size_t bytes)
{
    if (pages)
        munmap(pages, rounded(bytes));
}

void *ts_region_take(ts_region **region, size_t bytes)
{
    bytes = (bytes + 63) / 64 * 64;
    ts_region *block = *region;
    if (!block || block->size - block->used < bytes) {
        block = malloc(sizeof *block);
        const size_t size = bytes > REGION_BLOCK ? bytes : REGION_BLOCK;
        if (!block || !(block->memory = ts_pages_new(size))) {
            free(block);
            return NULL;
        }
        block->older = *region;
        block->size = size;
        block->used = 0;
        *region = block;
    }
    unsigned char *taken = block->memory + block->used;
    block->used += bytes;
    return taken;
}

void ts_region_give(ts_region *region, void *taken, size_t bytes)
{
    memset(taken, 0, bytes);
    region->used = (size_t)((unsigned char *)taken - region->memory);
}

void ts_region_free(ts_region *region)
{
    while (region) {
        ts_region *older = region->older;
        ts_pages_free(region->memory, region->size);
        free(region);
        region = older;
    }
}

void ts_heap_trim(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}
