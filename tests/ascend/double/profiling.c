/* Profiling: the order of calls, and a record of what ran: the set of counters, then a line per execution with the number
 * of its gear in the order of the file, as GE names the copies of a graph, and its batch size. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "double.h"

static bool opened, started;
static char folder[4096 + 32];
static FILE *record;

struct aclprofConfig {
    uint32_t devices;
    uint64_t types;
    aclprofAicoreMetrics metrics;
};

void record_execution(const offline *file, uint64_t gear) {
    size_t number = 0;
    while (number < file->gear_count && file->gears[number] != gear)
        number++;
    if (record)
        fprintf(record, "%d %lu\n", file->gear_count ? (int)number : -1, gear);
}

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
    if (!opened || !deviceIdList || deviceNums == 0 || aicoreEvents || dataTypeConfig == 0)
        return NULL;
    counted.live[PROFILES]++;
    aclprofConfig *config = malloc(sizeof *config);
    *config = (aclprofConfig){deviceNums, dataTypeConfig, aicoreMetrics};
    return config;
}

aclError aclprofStart(const aclprofConfig *config) {
    if (!opened || !config || started)
        return fail(ACL_ERROR_PROF_ALREADY_RUN, "profiling is not initialised, or runs already");
    started = true;
    char path[sizeof folder + 16];
    snprintf(path, sizeof path, "%s/executions", folder);
    record = mkdir(folder, 0755) == 0 ? fopen(path, "w") : NULL;
    if (!record)
        return fail(ACL_ERROR_FAILURE, "cannot write %s", path);
    fprintf(record, "%d\n", config->metrics);
    return ACL_SUCCESS;
}

aclError aclprofStop(const aclprofConfig *config) {
    if (!started || !config)
        return fail(ACL_ERROR_PROF_NOT_RUN, "profiling does not run");
    started = false;
    pthread_mutex_lock(&double_lock);
    fclose(record);
    record = NULL;
    pthread_mutex_unlock(&double_lock);
    return ACL_SUCCESS;
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
