/* What the files of the double share. Everything here is guarded by `double_lock` unless it says otherwise. */
#ifndef DOUBLE_DOUBLE_H
#define DOUBLE_DOUBLE_H

#include <pthread.h>
#include <stdbool.h>

#include "acl.h"
#include "graph.h"

enum { MAX_DEVICES = 8, MAX_GEARS = 32, CANARY = 64 };

/* Live objects by kind, for the report at exit. */
typedef enum {
    DEVICE_MEMORY,
    HOST_MEMORY,
    CONTEXTS,
    STREAMS,
    MODELS,
    DESCRIPTIONS,
    DATASETS,
    DATA_BUFFERS,
    PROFILES,
    KINDS
} kind;

typedef struct {
    int live[KINDS];
    int initialised, finalised;
    int executions[MAX_DEVICES], overlapped_copies, pageable_copies, bound_threads;
    int violations;
    char first_violation[256];
} counters;

extern pthread_mutex_t double_lock;
extern counters counted;

/* A context. `device` -1 marks one that was destroyed; its memory stays, so that stale handles are recognised. */
typedef struct context {
    struct context *next;
    int device;
    bool is_default;
} context;

/* One allocation. Addresses of device memory cannot be read by the host; `store` is where the bytes are. */
typedef struct block {
    struct block *next;
    uintptr_t address;
    size_t size;
    unsigned char *store;
    int device; /* -1: page-locked host memory */
    int pins;   /* copies and executions that have not ended */
    const void *pinned_by; /* the stream of the last of them */
    int models; /* loaded models whose memory this is */
} block;

typedef struct stream stream;

/* Something a stream does: `work` on the stream's thread, `publish` when its results may be seen. */
typedef struct job {
    struct job *next;
    void (*work)(struct job *);
    void (*publish)(struct job *);
    void (*discard)(struct job *);
    stream *on;
    aclError result;
    void *data;
} job;

struct stream {
    stream *next;
    context *in;
    pthread_t thread;
    pthread_cond_t changed;
    job *queue, *done; /* `done` has worked and is not published */
    bool working, ending, alive;
    int timeouts; /* so many more synchronisations run out of time */
    aclError error;
};

typedef struct {
    char soc[32], input_name[64], output_name[64];
    aclDataType input_type, output_type;
    aclFormat input_format;
    size_t rank, output_rank;
    int64_t dims[4], output_dims[4]; /* of one image */
    size_t gear_count; /* 0: static batch `batch` */
    uint64_t gears[MAX_GEARS], batch;
    size_t work_bytes, weight_bytes;
    float mean[4], scale[4]; /* of static AIPP */
    graph net;
} offline;

typedef struct model {
    struct model *next;
    uint32_t id;
    context *in;
    offline *file;
    uint64_t gear; /* 0 until set */
    int running;
    const void *running_on;
    block *work, *weights;
    bool work_is_own, weights_are_own;
} model;

/* state.c */
aclError fail(aclError code, const char *format, ...) __attribute__((format(printf, 2, 3)));
void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
aclError ready(void);
/* The code of an injected fault at this point, or 0. */
int fault(const char *site, int device);
int faults_version(void);
void write_report(void); /* takes `double_lock` */

/* device.c; `current` fails with 107002, 507010 or 100001. */
aclError current(context **found);
int device_of_current(void);

/* memory.c */
block *find_block(const void *address, size_t bytes);
aclError allocate(size_t bytes, int device, block **made);
void release_block(block *b);
bool canaries_intact(const block *b);
void pin(block *b, const void *by);
void unpin(block *b);
size_t used_memory(int device);

/* stream.c */
stream *find_stream(aclrtStream handle);
aclError submit(stream *s, job *j);
bool streams_in(const context *c);
void abandon_streams(int device);

/* model.c */
model *find_model(uint32_t id);
size_t image_bytes(const offline *file);
size_t result_bytes(const offline *file);
uint64_t largest_gear(const offline *file);
bool models_in(const context *c);
offline *read_offline(const unsigned char *bytes, size_t size, aclError *error);
void free_offline(offline *file);

/* dataset.c */
struct aclDataBuffer {
    void *data;
    size_t size;
};
struct aclmdlDataset {
    size_t count;
    aclDataBuffer *buffers[16];
};

/* execute.c */
int executing(int device);

/* profiling.c */
void record_execution(const offline *file, uint64_t gear);

#endif
