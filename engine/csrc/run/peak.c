#define _POSIX_C_SOURCE 200809L
#include "run/peak.h"

#include "kernels/table.h"
#include "run/memory.h"
#include "run/threads.h"

#include <string.h>
#include <time.h>

/* What each thread repeats: a loop of products, or reading `bytes` of its own. */
typedef struct {
    const ts_peak *loop;
    ts_stream_fn stream;
    uint8_t *memory;
    size_t bytes;
    int64_t iterations;
    volatile float sink[TS_MAX_THREADS];
} peak_job;

static void run_loop(void *context, int part, int parts)
{
    peak_job *job = context;
    (void)parts;
    job->sink[part] = job->loop->run(job->iterations);
}

static void read_memory(void *context, int part, int parts)
{
    peak_job *job = context;
    (void)parts;
    for (int64_t i = 0; i < job->iterations; i++)
        job->sink[part] = job->stream(job->memory + (size_t)part * job->bytes, job->bytes);
}

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double timed_run(ts_job body, peak_job *job, int threads)
{
    const double start = seconds();
    ts_threads_run(body, job, threads);
    return seconds() - start;
}

/*
 * Iterations a second of all threads together: the best of many runs. Runs are shorter than the time slices of other
 * processes, so that some run has every core to itself. A run that another process lengthened does not show that so many
 * iterations are enough: whichever later run is too short doubles them.
 */
static double best_rate(ts_job body, peak_job *job, int threads)
{
    const double run_seconds = 0.001, all_seconds = 0.15;
    double best = 0;
    for (double spent = 0, time; spent < all_seconds; spent += time) {
        time = timed_run(body, job, threads);
        const double rate = (double)job->iterations * threads / time;
        if (time < run_seconds)
            job->iterations *= 2;
        else if (rate > best)
            best = rate;
    }
    return best;
}

double ts_measure_peak(ts_dtype dtype, int threads, const char *level)
{
    uint32_t features;
    if (threads < 1 || ts_cpu_features(level, &features))
        return -1;
    if (threads > TS_MAX_THREADS)
        threads = TS_MAX_THREADS;
    peak_job job = {.loop = &ts_find_kernel(TS_PEAK, dtype, features)->peak, .iterations = 1000};
    return best_rate(run_loop, &job, threads) * job.loop->macs;
}

double ts_measure_reads(size_t bytes, int threads, const char *level)
{
    uint32_t features;
    if (threads < 1 || ts_cpu_features(level, &features))
        return -1;
    if (threads > TS_MAX_THREADS)
        threads = TS_MAX_THREADS;
    bytes = (bytes + 255) / 256 * 256;
    peak_job job = {.stream = ts_find_kernel(TS_STREAM, TS_U8, features)->stream, .bytes = bytes, .iterations = 1};
    job.memory = ts_pages_new((size_t)threads * bytes);
    if (!job.memory)
        return 0;
    memset(job.memory, 1, (size_t)threads * bytes); /* untouched pages are all the same one */
    const double rate = best_rate(read_memory, &job, threads) * (double)bytes;
    ts_pages_free(job.memory, (size_t)threads * bytes);
    return rate;
}
