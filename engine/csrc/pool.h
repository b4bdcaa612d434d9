/*
 * The thread pool of the process. Every program shares it, so two loaded models never run more threads
 * than the largest of them asked for, and one job runs at a time.
 */
#ifndef TS_POOL_H
#define TS_POOL_H

#include <stdatomic.h>

enum { TS_POOL_MAX_THREADS = 256 };

/* Called once per participating thread, with part in [0, parts). */
typedef void (*ts_job)(void *context, int part, int parts);

/*
 * Runs `job` on `threads` threads, the caller being part 0; returns when all parts are done. Calls from
 * several threads queue up behind each other. With fewer threads available than asked for (the system
 * refused to start one), the job still gets exactly `parts` = the number that take part.
 */
void ts_pool_run(ts_job job, void *context, int threads);

/* A barrier for the parts of one job. It spins: the parts run at once and are only microseconds apart. */
typedef struct {
    atomic_int arrived;
    atomic_int phase;
} ts_barrier;

void ts_barrier_init(ts_barrier *barrier);
void ts_barrier_wait(ts_barrier *barrier, int parts);

#endif
