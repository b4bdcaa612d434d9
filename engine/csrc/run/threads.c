#define _GNU_SOURCE
#include "run/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define cpu_relax() _mm_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("yield")
#else
#define cpu_relax() ((void)0)
#endif

/* About 50 us of spinning before a waiting thread starts to give its core away. */
enum { SPINS_BEFORE_YIELD = 1 << 11 };

static struct {
    pthread_mutex_t jobs; /* held by the caller for the whole job: one job at a time */
    pthread_mutex_t wake; /* guards the condition and the fields below it */
    pthread_cond_t work;
    _Atomic uint64_t generation; /* counts jobs; written with `wake` held, peeked at without */
    uint64_t born[TS_MAX_THREADS]; /* generation at which each worker was started: older jobs are not its own */
    int workers; /* threads started so far; worker i serves part i */
    ts_job job;
    void *context;
    int parts;
    atomic_int running; /* parts other than the caller's that are not done yet */
} pool = {.jobs = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

void ts_relax(int *spins)
{
    if (++*spins < SPINS_BEFORE_YIELD)
        cpu_relax();
    else
        sched_yield();
}

static void *serve(void *argument)
{
    const int part = (int)(intptr_t)argument;
    uint64_t seen = pool.born[part];
    for (;;) {
        /* The next batch often follows at once: look for it a moment before sleeping. */
        for (int spins = 0; spins < SPINS_BEFORE_YIELD && pool.generation == seen; spins++)
            cpu_relax();
        pthread_mutex_lock(&pool.wake);
        while (pool.generation == seen)
            pthread_cond_wait(&pool.work, &pool.wake);
        seen = pool.generation;
        const ts_job job = pool.job;
        void *context = pool.context;
        const int parts = pool.parts;
        pthread_mutex_unlock(&pool.wake);
        if (part >= parts)
            continue;
        job(context, part, parts);
        atomic_fetch_sub_explicit(&pool.running, 1, memory_order_release);
    }
    return NULL;
}

/* After fork() only the calling thread lives on: the child starts with a fresh, empty pool. */
static void reset_in_child(void)
{
    pthread_mutex_init(&pool.jobs, NULL);
    pthread_mutex_init(&pool.wake, NULL);
    pthread_cond_init(&pool.work, NULL);
    pool.workers = 0;
    pool.generation = 0;
    atomic_store(&pool.running, 0);
}

static void register_fork_handler(void)
{
    pthread_atfork(NULL, NULL, reset_in_child);
}

/* Called with `jobs` held; returns how many workers there are, fewer than wanted when the system refuses more. */
static int ensure_workers(int wanted)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
    while (pool.workers < wanted) {
        pthread_attr_t attributes;
        pthread_t thread;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        const int part = pool.workers + 1;
        pool.born[part] = pool.generation;
        const int failed = pthread_create(&thread, &attributes, serve, (void *)(intptr_t)part);
        pthread_attr_destroy(&attributes);
        if (failed)
            break;
        pool.workers++;
    }
    return pool.workers;
}

void ts_threads_run(ts_job job, void *context, int threads)
{
    if (threads <= 1) {
        job(context, 0, 1);
        return;
    }
    if (threads > TS_MAX_THREADS)
        threads = TS_MAX_THREADS;
    pthread_mutex_lock(&pool.jobs);
    const int helpers = ensure_workers(threads - 1);
    const int parts = (helpers < threads - 1 ? helpers : threads - 1) + 1;
    atomic_store_explicit(&pool.running, parts - 1, memory_order_relaxed);
    pthread_mutex_lock(&pool.wake);
    pool.job = job;
    pool.context = context;
    pool.parts = parts;
    pool.generation++;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.wake);
    job(context, 0, parts);
    int spins = 0;
    while (atomic_load_explicit(&pool.running, memory_order_acquire) != 0)
        ts_relax(&spins);
    pthread_mutex_unlock(&pool.jobs);
}
