/*
 * The thread pool of the process. Every program shares it, so two loaded models never run more threads
 * than the largest of them asked for, and one job runs at a time.
 */
#ifndef TS_THREADS_H
#define TS_THREADS_H

enum { TS_MAX_THREADS = 256 };

/* Called once per participating thread, with part in [0, parts). */
typedef void (*ts_job)(void *context, int part, int parts);

/*
 * Runs `job` on `threads` threads, the caller being part 0; returns when all parts are done. Calls from
 * several threads queue up behind each other. With fewer threads available than asked for (the system
 * refused to start one), the job still gets exactly `parts` = the number that take part.
 */
void ts_threads_run(ts_job job, void *context, int threads);

/* Called in a loop that waits for another thread: spins at first, for threads are mostly microseconds apart, later yields. */
void ts_relax(int *spins);

#endif
