/* The thread pool under load: every part runs exactly once, from several callers, across barriers; made for TSan. */
#include "check.h"
#include "pool.h"

#include <pthread.h>

enum { CALLERS = 3, JOBS = 200, PHASES = 20, MOST_THREADS = 5 };

typedef struct {
    int counts[MOST_THREADS];
    int table[PHASES][MOST_THREADS];
    int parts;
    ts_barrier barrier;
} job_state;

/* Each phase reads what the other parts wrote in the phase before: a broken barrier shows as a wrong sum or a race. */
static void job(void *context, int part, int parts)
{
    job_state *state = context;
    state->counts[part]++;
    if (part == 0)
        state->parts = parts;
    state->table[0][part] = part + 1;
    for (int phase = 1; phase < PHASES; phase++) {
        ts_barrier_wait(&state->barrier, parts);
        int sum = 0;
        for (int other = 0; other < parts; other++)
            sum += state->table[phase - 1][other];
        state->table[phase][part] = sum % 1000 + part;
    }
}

static void *caller(void *argument)
{
    random_source random = {(uint64_t)(intptr_t)argument * 7919 + 1};
    for (int i = 0; i < JOBS; i++) {
        job_state state = {0};
        ts_barrier_init(&state.barrier);
        const int threads = random_between(&random, 1, MOST_THREADS);
        ts_pool_run(job, &state, threads);
        CHECK(state.parts == threads, "%d parts instead of %d", state.parts, threads);
        for (int part = 0; part < MOST_THREADS; part++)
            CHECK(state.counts[part] == (part < threads), "part %d ran %d times", part, state.counts[part]);
        int expected[MOST_THREADS], sum = 0;
        for (int part = 0; part < threads; part++)
            sum += part + 1;
        for (int phase = 1; phase < PHASES; phase++) {
            int next = 0;
            for (int part = 0; part < threads; part++)
                next += expected[part] = sum % 1000 + part;
            sum = next;
        }
        for (int part = 0; part < threads; part++)
            CHECK(state.table[PHASES - 1][part] == expected[part], "part %d saw stale data", part);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++)
        CHECK(!pthread_create(&threads[i], NULL, caller, (void *)(intptr_t)(i + 1)), "thread %d", i);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    printf("%d jobs from %d callers\n", CALLERS * JOBS, CALLERS);
    return 0;
}
