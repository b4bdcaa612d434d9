/* Memory: every block is known, has canaries, starts as garbage, and device memory cannot be touched by the host. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "double.h"

enum { GARBAGE = 0xFF, FENCE = 0x5C };
static const size_t REGION = (size_t)64 << 30;

static block *blocks;
static uintptr_t region, next_address; /* in RC mode there is no such region */

static size_t device_memory(void) {
    const char *text = getenv("ACL_DOUBLE_MEMORY");
    return text ? strtoull(text, NULL, 10) : (size_t)4 << 30;
}

#ifndef DOUBLE_RC
/* Addresses are never used twice, so a stale one is always noticed. */
static uintptr_t device_address(size_t size) {
    if (!region) {
        void *reserved = mmap(NULL, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        region = next_address = reserved == MAP_FAILED ? 0 : (uintptr_t)reserved;
    }
    uintptr_t address = next_address;
    next_address += (size + 2 * CANARY + 63) / 64 * 64;
    return region && next_address < region + REGION ? address : 0;
}
#endif

static bool is_device_address(const void *address) {
    (void)next_address;
    return region && (uintptr_t)address >= region && (uintptr_t)address < region + REGION;
}

block *find_block(const void *address, size_t bytes) {
    uintptr_t at = (uintptr_t)address;
    for (block *b = blocks; b; b = b->next)
        if (at >= b->address && at < b->address + b->size && bytes <= b->address + b->size - at)
            return b;
    return NULL;
}

size_t used_memory(int device) {
    size_t used = 0;
    for (block *b = blocks; b; b = b->next)
        used += b->device == device ? b->size : 0;
    return used;
}

aclError allocate(size_t bytes, int device, block **made) {
    if (bytes == 0)
        return fail(ACL_ERROR_INVALID_PARAM, "size 0");
    if (device >= 0 && used_memory(device) + bytes > device_memory())
        return fail(ACL_ERROR_RT_DEVICE_OOM, "device %d has no %zu bytes left", device, bytes);
    block *b = calloc(1, sizeof *b);
    unsigned char *raw = aligned_alloc(64, (bytes + 2 * CANARY + 63) / 64 * 64);
    memset(raw, FENCE, CANARY);
    memset(raw + CANARY, GARBAGE, bytes);
    memset(raw + CANARY + bytes, FENCE, CANARY);
    *b = (block){.next = blocks, .size = bytes, .store = raw + CANARY, .device = device};
    b->address = (uintptr_t)b->store;
#ifndef DOUBLE_RC
    if (device >= 0)
        b->address = device_address(bytes);
#endif
    blocks = b;
    counted.live[device >= 0 ? DEVICE_MEMORY : HOST_MEMORY]++;
    *made = b;
    return ACL_SUCCESS;
}

bool canaries_intact(const block *b) {
    for (int i = 0; i < CANARY; i++)
        if (b->store[-CANARY + i] != FENCE || b->store[b->size + i] != FENCE)
            return false;
    return true;
}

void release_block(block *b) {
    if (b->pins)
        violation("memory was freed while a copy or an execution uses it");
    if (b->models)
        violation("memory was freed while a loaded model lives in it");
    if (!canaries_intact(b))
        violation("something wrote past the ends of a block of %zu bytes", b->size);
    for (block **link = &blocks; *link; link = &(*link)->next) {
        if (*link == b) {
            *link = b->next;
            break;
        }
    }
    counted.live[b->device >= 0 ? DEVICE_MEMORY : HOST_MEMORY]--;
    free(b->store - CANARY);
    free(b);
}

void pin(block *b, const void *by) {
    if (b && b->pins++ && b->pinned_by != by)
        violation("a buffer is used by two streams at once");
    if (b)
        b->pinned_by = by;
}

void unpin(block *b) {
    if (b)
        b->pins--;
}

aclError aclrtMalloc(void **devPtr, size_t size, aclrtMemMallocPolicy policy) {
    context *c;
    block *b;
    aclError error = current(&c);
    if (error)
        return error;
    if (policy > ACL_MEM_MALLOC_NORMAL_ONLY)
        return fail(ACL_ERROR_RT_INVALID_MALLOC_TYPE, "policy %d is not supported on this chip", (int)policy);
    int code = fault("malloc", c->device);
    if (code)
        return fail(code, "allocating %zu bytes on device %d failed", size, c->device);
    pthread_mutex_lock(&double_lock);
    error = allocate(size, c->device, &b);
    pthread_mutex_unlock(&double_lock);
    if (!error)
        *devPtr = (void *)b->address;
    return error;
}

aclError aclrtMallocHost(void **hostPtr, size_t size) {
    context *c;
    block *b;
    aclError error = current(&c);
    int code = error ? 0 : fault("mallochost", c->device);
    if (error || code)
        return error ? error : fail(code, "allocating %zu bytes of host memory failed", size);
    pthread_mutex_lock(&double_lock);
    error = allocate(size, -1, &b);
    pthread_mutex_unlock(&double_lock);
    if (!error)
        *hostPtr = (void *)b->address;
    return error;
}

static aclError release_address(void *address, bool host) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    if (device_of_current() < 0)
        return fail(ACL_ERROR_RT_CONTEXT_NULL, "context pointer null");
    pthread_mutex_lock(&double_lock);
    block *b = find_block(address, 1);
    bool usable = b && b->address == (uintptr_t)address && (b->device < 0) == host;
    if (usable)
        release_block(b);
    else
        violation("memory was freed twice, or never allocated, or is of the other kind");
    pthread_mutex_unlock(&double_lock);
    return usable ? ACL_SUCCESS : fail(ACL_ERROR_RT_PARAM_INVALID, "%p is no such memory", address);
}

aclError aclrtFree(void *devPtr) {
    return release_address(devPtr, false);
}

aclError aclrtFreeHost(void *hostPtr) {
    return release_address(hostPtr, true);
}

/* One end of a copy: its bytes for us, and its block where it has one. */
typedef struct {
    unsigned char *bytes;
    block *of;
} end;

static aclError resolve(const void *address, size_t count, bool on_device, int device, end *found) {
    block *b = find_block(address, count);
#ifdef DOUBLE_RC
    on_device = b && b->device >= 0; /* host and device are one; any kind goes */
#endif
    if (on_device && (!b || b->device != device))
        return fail(ACL_ERROR_RT_PARAM_INVALID, "%p + %zu is not within memory of device %d", address, count, device);
    if (!on_device && is_device_address(address))
        return fail(ACL_ERROR_RT_PARAM_INVALID, "%p is device memory, the kind of copy says host", address);
    found->of = b;
    found->bytes = b ? b->store + ((uintptr_t)address - b->address) : (unsigned char *)(uintptr_t)address;
    return ACL_SUCCESS;
}

static aclError resolve_copy(void *dst, size_t destMax, const void *src, size_t count, int kind, int device, end *to,
                             end *from) {
    if (!dst || !src || count == 0)
        return fail(ACL_ERROR_INVALID_PARAM, "null pointer or nothing to copy");
    if (destMax < count)
        return fail(ACL_ERROR_RT_PARAM_INVALID, "destMax %zu is less than count %zu", destMax, count);
    if (kind < ACL_MEMCPY_HOST_TO_HOST || kind > ACL_MEMCPY_DEVICE_TO_DEVICE)
        return fail(ACL_ERROR_INVALID_PARAM, "kind %d", kind);
    bool to_device = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
    aclError error = resolve(dst, destMax, to_device, device, to);
    return error ? error : resolve(src, count, kind >= ACL_MEMCPY_DEVICE_TO_HOST, device, from);
}

aclError aclrtMemcpy(void *dst, size_t destMax, const void *src, size_t count, aclrtMemcpyKind kind) {
    context *c;
    end to = {0}, from = {0};
    aclError error = current(&c);
    int code = error ? 0 : fault("memcpy", c->device);
    if (error || code)
        return error ? error : fail(code, "copy failed");
    pthread_mutex_lock(&double_lock);
    error = resolve_copy(dst, destMax, src, count, (int)kind, c->device, &to, &from);
    if (!error && ((to.of && to.of->pins) || (from.of && from.of->pins)))
        violation("a copy touches memory that a stream is using");
    if (!error)
        memmove(to.bytes, from.bytes, count);
    pthread_mutex_unlock(&double_lock);
    return error;
}

aclError aclrtMemset(void *devPtr, size_t maxCount, int32_t value, size_t count) {
    context *c;
    end to = {0};
    aclError error = current(&c);
    if (error)
        return error;
    if (maxCount < count)
        return fail(ACL_ERROR_RT_PARAM_INVALID, "maxCount %zu is less than count %zu", maxCount, count);
    pthread_mutex_lock(&double_lock);
    error = resolve(devPtr, maxCount, true, c->device, &to);
    if (!error)
        memset(to.bytes, value, count);
    pthread_mutex_unlock(&double_lock);
    return error;
}

/* An asynchronous copy. What it writes is garbage until the stream was synchronised or goes on. */
typedef struct {
    end to, from;
    size_t count;
    unsigned char *fetched;
} copying;

static void copy_work(job *j) {
    copying *copy = j->data;
    usleep(50);
    memcpy(copy->fetched, copy->from.bytes, copy->count);
    pthread_mutex_lock(&double_lock);
    bool overlaps = executing(j->on->in->device) > 0;
    counted.overlapped_copies += overlaps;
    pthread_mutex_unlock(&double_lock);
    if (overlaps)
        write_report();
}

static void copy_discard(job *j) {
    copying *copy = j->data;
    unpin(copy->to.of);
    unpin(copy->from.of);
    free(copy->fetched);
    free(copy);
}

static void copy_publish(job *j) {
    copying *copy = j->data;
    memcpy(copy->to.bytes, copy->fetched, copy->count);
    copy_discard(j);
}

aclError aclrtMemcpyAsync(void *dst, size_t destMax, const void *src, size_t count, aclrtMemcpyKind kind,
                          aclrtStream handle) {
    context *c;
    end to = {0}, from = {0};
    aclError error = current(&c);
    int code = error ? 0 : fault("memcpy", c->device);
    if (error || code)
        return error ? error : fail(code, "copy failed");
    if (kind == ACL_MEMCPY_HOST_TO_HOST)
        return fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "asynchronous copy from host to host");
    pthread_mutex_lock(&double_lock);
    stream *s = find_stream(handle);
    error = !s || s->in != c ? fail(ACL_ERROR_RT_STREAM_CONTEXT, "the stream is not of the current context")
                             : resolve_copy(dst, destMax, src, count, (int)kind, c->device, &to, &from);
    if (!error) {
        counted.pageable_copies += !to.of || !from.of;
        copying *copy = malloc(sizeof *copy);
        *copy = (copying){to, from, count, malloc(count)};
        pin(to.of, s);
        pin(from.of, s);
        memset(to.bytes, GARBAGE, count);
        job *j = calloc(1, sizeof *j);
        *j = (job){.work = copy_work, .publish = copy_publish, .discard = copy_discard, .data = copy};
        error = submit(s, j);
    }
    pthread_mutex_unlock(&double_lock);
    return error;
}

aclError aclrtGetMemInfo(aclrtMemAttr attr, size_t *free, size_t *total) {
    context *c;
    aclError error = current(&c);
    if (error)
        return error;
    if (attr != ACL_DDR_MEM)
        return fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "this chip has no such memory");
    pthread_mutex_lock(&double_lock);
    *total = device_memory();
    *free = *total - used_memory(c->device);
    pthread_mutex_unlock(&double_lock);
    return ACL_SUCCESS;
}
