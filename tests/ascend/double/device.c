/* Devices and contexts: reference counts per process, the current context per thread. */
#include <stdlib.h>

#include "double.h"

static __thread context *current_context;
static context *contexts;
static context *default_contexts[MAX_DEVICES];
static int references[MAX_DEVICES];

static int device_count(void) {
    const char *text = getenv("ACL_DOUBLE_DEVICES");
    int count = text ? atoi(text) : 1;
    return count < 0 ? 0 : count > MAX_DEVICES ? MAX_DEVICES : count;
}

static aclError check_device(int device) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    if (device < 0 || device >= device_count())
        return fail(ACL_ERROR_RT_INVALID_DEVICEID, "device %d does not exist", device);
    int code = fault("lost", device);
    return code ? fail(code, "device %d lost its heartbeat", device) : ACL_SUCCESS;
}

aclError current(context **found) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    context *c = current_context;
    pthread_mutex_lock(&double_lock);
    int device = c ? c->device : -1;
    pthread_mutex_unlock(&double_lock);
    if (device < 0)
        return fail(ACL_ERROR_RT_CONTEXT_NULL, "context pointer null");
    *found = c;
    int code = fault("lost", device);
    return code ? fail(code, "device %d lost its heartbeat", device) : ACL_SUCCESS;
}

/* -1 on a thread without a context; for releases, which work on lost devices too. */
int device_of_current(void) {
    return current_context ? current_context->device : -1;
}

static context *make_context(int device, bool is_default) {
    context *c = calloc(1, sizeof *c);
    *c = (context){contexts, device, is_default};
    contexts = c;
    counted.live[CONTEXTS]++;
    return c;
}

static void destroy(context *c) {
    if (streams_in(c))
        violation("a context was destroyed before its streams");
    if (models_in(c))
        violation("a context was destroyed before its models were unloaded");
    c->device = -1;
    counted.live[CONTEXTS]--;
}

aclError aclrtSetDevice(int32_t deviceId) {
    aclError error = check_device(deviceId);
    int code = error ? 0 : fault("setdevice", deviceId);
    if (error || code)
        return error ? error : fail(code, "device %d cannot be opened", deviceId);
    pthread_mutex_lock(&double_lock);
    if (references[deviceId]++ == 0)
        default_contexts[deviceId] = make_context(deviceId, true);
    counted.bound_threads++;
    current_context = default_contexts[deviceId];
    pthread_mutex_unlock(&double_lock);
    return ACL_SUCCESS;
}

static aclError reset(int32_t device, bool everything) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    if (device < 0 || device >= device_count())
        return fail(ACL_ERROR_RT_INVALID_DEVICEID, "device %d does not exist", device);
    pthread_mutex_lock(&double_lock);
    bool known = references[device] > 0;
    if (!known)
        violation("device %d was reset more often than it was set", device);
    int given = known ? (everything ? references[device] : 1) : 0;
    references[device] -= given;
    counted.bound_threads -= given;
    if (known && references[device] == 0) {
        for (context *c = contexts; c; c = c->next)
            if (c->device == device && !c->is_default)
                violation("device %d was reset before a context on it was destroyed", device);
        destroy(default_contexts[device]);
        if (used_memory(device))
            violation("device %d was reset before its memory was freed", device);
    }
    pthread_mutex_unlock(&double_lock);
    return known ? ACL_SUCCESS : fail(ACL_ERROR_RT_INVALID_DEVICEID, "device %d was not set", device);
}

aclError aclrtResetDevice(int32_t deviceId) {
    return reset(deviceId, false);
}

aclError aclrtGetDevice(int32_t *deviceId) {
    context *c;
    aclError error = current(&c);
    if (!error)
        *deviceId = c->device;
    return error;
}

aclError aclrtGetDeviceCount(uint32_t *count) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    *count = (uint32_t)device_count();
    return ACL_SUCCESS;
}

aclError aclrtCreateContext(aclrtContext *made, int32_t deviceId) {
    aclError error = check_device(deviceId);
    if (error)
        return error;
    pthread_mutex_lock(&double_lock);
    current_context = make_context(deviceId, false);
    pthread_mutex_unlock(&double_lock);
    *made = current_context;
    return ACL_SUCCESS;
}

static context *find(aclrtContext handle) {
    context *c = contexts;
    while (c && c != handle)
        c = c->next;
    return c && c->device >= 0 ? c : NULL;
}

aclError aclrtDestroyContext(aclrtContext handle) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    pthread_mutex_lock(&double_lock);
    context *c = find(handle);
    bool usable = c && !c->is_default;
    if (usable)
        destroy(c);
    else
        violation("a context was destroyed that is none, or a default one");
    pthread_mutex_unlock(&double_lock);
    if (usable && current_context == c)
        current_context = NULL;
    return usable ? ACL_SUCCESS : fail(ACL_ERROR_RT_INVALID_HANDLE, "no such context");
}

aclError aclrtSetCurrentContext(aclrtContext handle) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    pthread_mutex_lock(&double_lock);
    context *c = find(handle);
    pthread_mutex_unlock(&double_lock);
    if (!c)
        return fail(ACL_ERROR_RT_INVALID_HANDLE, "no such context");
    current_context = c;
    return ACL_SUCCESS;
}

aclError aclrtGetCurrentContext(aclrtContext *found) {
    context *c;
    aclError error = current(&c);
    if (!error)
        *found = c;
    return error;
}

#ifndef DOUBLE_CANN6
aclError aclrtResetDeviceForce(int32_t deviceId) {
    abandon_streams(deviceId);
    return reset(deviceId, true);
}

aclError aclrtGetDeviceUtilizationRate(int32_t deviceId, aclrtUtilizationInfo *info) {
    aclError error = check_device(deviceId);
    if (error)
        return error;
    if (info->utilizationExtend)
        return fail(ACL_ERROR_INVALID_PARAM, "utilizationExtend must be NULL");
    pthread_mutex_lock(&double_lock);
    *info = (aclrtUtilizationInfo){executing(deviceId) ? 75 : 0, 25, -1, -1, NULL};
    pthread_mutex_unlock(&double_lock);
    return ACL_SUCCESS;
}
#endif
