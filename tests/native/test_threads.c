/* The thread pool and the sharing of work under load, from several callers; made for TSan. */
#include "check.h"
#include "run/threads.h"
#include "run/sharing.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

enum { CALLERS = 3, JOBS = 60, STEPS = 12, MOST_UNITS = 200, MOST_THREADS = 5 };

/* What a team has done: for every unit of every step how often, and what it read of the step before. */
typedef struct {
    int units[STEPS];
    int runs[STEPS][MOST_UNITS];
    int sums[STEPS][MOST_UNITS];
} team_state;

typedef struct {
    int counts[MOST_THREADS]; /* of calls of each part */
    int parts;
    ts_queue *queues; /* null: one thread */
    team_state own[MOST_THREADS], together;
} job_state;

/* Each step reads what anybody wrote in the step before: a leader who does not wait shows as a wrong sum or a race. */
static void walk(team_state *team, ts_share *share, int part)
{
    for (int step = 0; step < STEPS; step++) {
        int from, to;
        ts_share_begin(share);
        while (ts_share_take(share, team->units[step], &from, &to))
            for (int unit = from; unit < to; unit++) {
                int sum = unit;
                for (int before = 0; step > 0 && before < team->units[step - 1]; before++)
                    sum += team->sums[step - 1][before] % 1000;
                team->sums[step][unit] = sum;
                team->runs[step][unit]++;
                if ((step + unit + part) % 61 == 0)
                    sched_yield(); /* uneven threads: others must step in */
            }
        ts_share_end(share);
    }
}

static void job(void *context, int part, int parts)
{
    job_state *state = context;
    state->counts[part]++;
    if (part == 0)
        state->parts = parts;
    uint32_t step = 0;
    for (int i = 0; i < parts; i++) {
        const int leader = (part + i) % parts;
        ts_share share = {.queues = state->queues, .leader = leader, .members = 1, .home = leader, .guest = i > 0};
        walk(&state->own[leader], &share, part);
        step = share.step;
    }
    ts_share share = {.queues = state->queues, .members = parts, .home = part, .step = step};
    walk(&state->together, &share, part);
}

static void check_team(const team_state *team)
{
    int before = 0;
    for (int step = 0; step < STEPS; step++) {
        int sum = 0;
        for (int unit = 0; unit < team->units[step]; unit++) {
            CHECK(team->runs[step][unit] == 1, "unit %d of step %d ran %d times", unit, step, team->runs[step][unit]);
            CHECK(team->sums[step][unit] == unit + before, "unit %d of step %d saw stale data", unit, step);
            sum += team->sums[step][unit] % 1000;
        }
        before = sum;
    }
}

static void choose_units(team_state *team, random_source *random)
{
    for (int step = 0; step < STEPS; step++)
        team->units[step] = random_between(random, 0, random_between(random, 0, 1) ? 5 : MOST_UNITS);
}

static void *caller(void *argument)
{
    random_source random = {(uint64_t)(intptr_t)argument * 7919 + 1};
    job_state *state = malloc(sizeof *state);
    ts_queue *queues = ts_queues_new(MOST_THREADS);
    CHECK(state && queues, "out of memory");
    for (int i = 0; i < JOBS; i++) {
        const int threads = random_between(&random, 1, MOST_THREADS);
        memset(state, 0, sizeof *state);
        state->queues = threads > 1 ? queues : NULL;
        for (int part = 0; part < threads; part++)
            choose_units(&state->own[part], &random);
        choose_units(&state->together, &random);
        ts_queues_reset(queues, MOST_THREADS);
        ts_threads_run(job, state, threads);
        CHECK(state->parts == threads, "%d parts instead of %d", state->parts, threads);
        for (int part = 0; part < MOST_THREADS; part++)
            CHECK(state->counts[part] == (part < threads), "part %d ran %d times", part, state->counts[part]);
        for (int part = 0; part < threads; part++)
            check_team(&state->own[part]);
        check_team(&state->together);
    }
    free(queues);
    free(state);
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
