/* Profiling: order of calls only; the files that msprof makes are checked elsewhere. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "double.h"

static bool opened, started;
static char folder[4096 + 32];

struct aclprofConfig {
    uint32_t devices;
    uint64_t types;
};

aclError aclprofInit(const char *profilerResultPath, size_t length) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    if (!profilerResultPath || length == 0 || length > 4096 || strlen(profilerResultPath) < length)
        return fail(ACL_ERROR_INVALID_PARAM, "path of %zu bytes", length);
    if (opened)
        return fail(ACL_ERROR_PROF_ALREADY_RUN, "profiling was initialised before");
    snprintf(folder, sizeof folder, "%.*s/PROF_000001_double", (int)length, profilerResultPath);
    opened = true;
    return ACL_SUCCESS;
}

aclprofConfig *aclprofCreateConfig(uint32_t *deviceIdList, uint32_t deviceNums, aclprofAicoreMetrics aicoreMetrics,
                                   const aclprofAicoreEvents *aicoreEvents, uint64_t dataTypeConfig) {
    (void)aicoreMetrics;
    if (!opened || !deviceIdList || deviceNums == 0 || aicoreEvents || dataTypeConfig == 0)
        return NULL;
    counted.live[PROFILES]++;
    aclprofConfig *config = malloc(sizeof *config);
    *config = (aclprofConfig){deviceNums, dataTypeConfig};
    return config;
}

aclError aclprofStart(const aclprofConfig *config) {
    if (!opened || !config || started)
        return fail(ACL_ERROR_PROF_ALREADY_RUN, "profiling is not initialised, or runs already");
    started = true;
    return ACL_SUCCESS;
}

aclError aclprofStop(const aclprofConfig *config) {
    if (!started || !config)
        return fail(ACL_ERROR_PROF_NOT_RUN, "profiling does not run");
    started = false;
    return mkdir(folder, 0755) == 0 ? ACL_SUCCESS : fail(ACL_ERROR_FAILURE, "cannot write %s", folder);
}

aclError aclprofDestroyConfig(const aclprofConfig *config) {
    if (!config)
        return fail(ACL_ERROR_INVALID_PARAM, "null configuration");
    counted.live[PROFILES]--;
    free((void *)config);
    return ACL_SUCCESS;
}

aclError aclprofFinalize() {
    if (!opened)
        return fail(ACL_ERROR_PROF_NOT_RUN, "profiling was not initialised");
    opened = false;
    return ACL_SUCCESS;
}
