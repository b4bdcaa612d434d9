/* Initialisation, error text, injected faults and the account of what was used and not given back. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "double.h"

pthread_mutex_t double_lock = PTHREAD_MUTEX_INITIALIZER;
counters counted;

static __thread char message[512], handed_out[512];

aclError fail(aclError code, const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(message, sizeof message, "EZ9999: Inner Error! %s [double %d]", text, code);
    return code;
}

/* Wrong use that a real device might let pass for a while. */
void violation(const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "ascend double: violation: %s\n", text);
    if (counted.violations++ == 0)
        memcpy(counted.first_violation, text, sizeof text);
}

const char *aclGetRecentErrMsg() {
    if (message[0] == 0)
        return NULL;
    memcpy(handed_out, message, sizeof message);
    message[0] = 0;
    return handed_out;
}

aclError ready(void) {
    pthread_mutex_lock(&double_lock);
    bool usable = counted.initialised && !counted.finalised;
    pthread_mutex_unlock(&double_lock);
    return usable ? ACL_SUCCESS : fail(ACL_ERROR_UNINITIALIZE, "aclInit was not called");
}

/*
 * Faults: "site[@device]=code[*times][+skip]", separated by ";". ACL_DOUBLE_FAULTS holds them, or "@file": then the file
 * is read again whenever it changes, so that a test can break a running process. The site "count" breaks nothing: what
 * has run so far, at the start of a service for instance, no longer counts.
 */
typedef struct {
    char site[24];
    int device, code, left, skip;
} injected;

static injected faults[16];
static int fault_count, fault_settings;
static char faults_file[400];
static struct stat faults_read;

static void parse_faults(char *text) {
    fault_count = 0;
    fault_settings++;
    for (char *rest, *item = strtok_r(text, ";\n", &rest); item && fault_count < 16; item = strtok_r(NULL, ";\n", &rest)) {
        injected f = {.device = -1, .left = -1};
        char *equals = strchr(item, '='), *at = strchr(item, '@');
        if (!equals)
            continue;
        char *end = at && at < equals ? at : equals;
        snprintf(f.site, sizeof f.site, "%.*s", (int)(end - item), item);
        f.device = end == at ? atoi(at + 1) : -1;
        f.code = atoi(equals + 1);
        f.left = strchr(equals, '*') ? atoi(strchr(equals, '*') + 1) : -1;
        f.skip = strchr(equals, '+') ? atoi(strchr(equals, '+') + 1) : 0;
        faults[fault_count++] = f;
        if (strcmp(f.site, "count") == 0) {
            memset(counted.executions, 0, sizeof counted.executions);
            counted.overlapped_copies = 0;
        }
    }
}

static void read_faults_file(void) {
    struct stat now;
    char text[1024] = "";
    if (!faults_file[0] || stat(faults_file, &now) != 0)
        return;
    if (now.st_ino == faults_read.st_ino && now.st_mtim.tv_sec == faults_read.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == faults_read.st_mtim.tv_nsec)
        return;
    faults_read = now;
    FILE *file = fopen(faults_file, "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        parse_faults(text);
    }
}

void aclDoubleSetFaults(const char *text) {
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", text);
    pthread_mutex_lock(&double_lock);
    parse_faults(copy);
    pthread_mutex_unlock(&double_lock);
}

int fault(const char *site, int device) {
    int code = 0;
    pthread_mutex_lock(&double_lock);
    read_faults_file();
    for (int i = 0; i < fault_count && !code; i++) {
        injected *f = &faults[i];
        if (strcmp(f->site, site) != 0 || (f->device >= 0 && f->device != device) || f->left == 0)
            continue;
        if (f->skip > 0) {
            f->skip--;
            continue;
        }
        f->left -= f->left > 0;
        code = f->code;
    }
    pthread_mutex_unlock(&double_lock);
    return code;
}

/* Changes whenever faults are set; an execution that hangs or is held ends then. Under `double_lock`. */
int faults_version(void) {
    read_faults_file();
    return fault_settings;
}

aclError aclInit(const char *configPath) {
    (void)configPath;
    pthread_mutex_lock(&double_lock);
    bool again = counted.initialised++ > 0;
    const char *text = getenv("ACL_DOUBLE_FAULTS");
    if (!again && text && text[0] == '@')
        snprintf(faults_file, sizeof faults_file, "%s", text + 1);
    pthread_mutex_unlock(&double_lock);
    if (again)
        return fail(ACL_ERROR_REPEAT_INITIALIZE, "aclInit was called before");
    if (text && text[0] != '@')
        aclDoubleSetFaults(text);
    return ACL_SUCCESS;
}

aclError aclFinalize() {
    if (ready() != ACL_SUCCESS)
        return fail(ACL_ERROR_REPEAT_FINALIZE, "nothing to finalise");
    pthread_mutex_lock(&double_lock);
    counted.finalised++;
    for (int k = 0; k < KINDS; k++)
        if (counted.live[k])
            violation("aclFinalize with %d live objects of kind %d", counted.live[k], k);
    pthread_mutex_unlock(&double_lock);
    return ACL_SUCCESS;
}

aclError aclrtGetVersion(int32_t *major, int32_t *minor, int32_t *patch) {
    *major = 1;
#ifdef DOUBLE_CANN6
    *minor = 4;
#else
    *minor = 13;
#endif
    *patch = 0;
    return ACL_SUCCESS;
}

const char *aclrtGetSocName() {
    const char *name = getenv("ACL_DOUBLE_SOC");
    return ready() != ACL_SUCCESS ? NULL : name ? name : "Ascend310B1";
}

aclError aclrtGetRunMode(aclrtRunMode *runMode) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
#ifdef DOUBLE_RC
    *runMode = ACL_DEVICE;
#else
    *runMode = ACL_HOST;
#endif
    return ACL_SUCCESS;
}

/* JSON of the account; returns its length. */
int aclDoubleReport(char *text, size_t size) {
    static const char *names[KINDS] = {"device_memory", "host_memory", "contexts", "streams", "models",
                                       "descriptions", "datasets", "data_buffers", "profiles"};
    pthread_mutex_lock(&double_lock);
    int length = snprintf(text, size,
                          "{\"initialised\": %d, \"finalised\": %d, \"executions\": [%d, %d, %d], \"overlapped_copies\": %d, "
                          "\"pageable_copies\": %d, \"violations\": %d, \"first_violation\": \"%s\", \"live\": {",
                          counted.initialised, counted.finalised, counted.executions[0], counted.executions[1],
                          counted.executions[2], counted.overlapped_copies,
                          counted.pageable_copies, counted.violations, counted.first_violation);
    for (int k = 0; k < KINDS; k++)
        length += snprintf(text + length, size - length, "\"%s\": %d, ", names[k], counted.live[k]);
    length += snprintf(text + length, size - length, "\"devices\": %d}}\n", counted.bound_threads);
    pthread_mutex_unlock(&double_lock);
    return length;
}

/* At exit, and whenever a copy overlapped an execution, for which a test may wait; a reader never sees half of it. */
__attribute__((destructor)) void write_report(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *path = getenv("ACL_DOUBLE_REPORT");
    char text[2048], made[500];
    if (!path)
        return;
    pthread_mutex_lock(&lock);
    snprintf(made, sizeof made, "%s.%d", path, (int)getpid());
    FILE *file = fopen(made, "w");
    if (file) {
        aclDoubleReport(text, sizeof text);
        fputs(text, file);
        fclose(file);
        rename(made, path);
    }
    pthread_mutex_unlock(&lock);
}
