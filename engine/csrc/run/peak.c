#define _POSIX_C_SOURCE 200809L
#include "run/peak.h"

#include "kernels/table.h"
#include "run/threads.h"

#include <time.h>

typedef struct {
    const ts_peak *loop;
    int64_t iterations;
    volatile float sink[TS_MAX_THREADS];
} peak_job;

static void run_loop(void *context, int part, int parts)
{
    peak_job *job = context;
    (void)parts;
    job->sink[part] = job->loop->run(job->iterations);
}

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double timed_run(peak_job *job, int threads)
{
    const double start = seconds();
    ts_threads_run(run_loop, job, threads);
    return seconds() - start;
}

double ts_measure_peak(ts_dtype dtype, int threads, const char *level)
{
    enum { RUNS = 12 };
    const double target_seconds = 0.01;
    uint32_t features;
    if (threads < 1 || ts_cpu_features(level, &features))
        return -1;
    if (threads > TS_MAX_THREADS)
        threads = TS_MAX_THREADS;
    peak_job job = {.loop = &ts_find_kernel(TS_PEAK, dtype, features)->peak, .iterations = 1000};
    while (timed_run(&job, threads) < target_seconds)
        job.iterations *= 2;
    double best = 0;
    for (int i = 0; i < RUNS; i++) {
        const double rate = (double)job.iterations * job.loop->macs * threads / timed_run(&job, threads);
        best = rate > best ? rate : best;
    }
    return best;
}
