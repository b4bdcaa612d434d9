/*
 * Handing out the work of a step as threads become free.
 *
 * Cores are never equally fast at the same moment, least of all rented ones. A split made in advance waits for the slowest.
 * Here a step is cut into tickets. They lie in queues, one for each thread, each in its own cache lines. A thread takes a
 * quarter of what is left at the front of its own queue, again and again. When its queue is empty, it takes from the back
 * of another. So a thread does neighbouring work, touches no other queue before its own is empty, and the last tickets
 * are small.
 *
 * A team is one leader and other members; all go through the same steps in the same order. The leader opens every step.
 * At the end of a step it waits until all tickets are done, those that other members took included. A member waits until
 * the leader has opened a step. It never waits for the end of one: it finds no tickets left, and goes on to the next.
 */
#ifndef TS_SHARING_H
#define TS_SHARING_H

#include <stdatomic.h>
#include <stdint.h>

enum { TS_CACHE_LINE = 64 };

typedef struct {
    _Alignas(TS_CACHE_LINE) _Atomic uint64_t tickets; /* step << 32 | first << 16 | end */
    _Alignas(TS_CACHE_LINE) atomic_int helped; /* tickets of a leader's step that others have done */
} ts_queue;

/* One thread's part in a team. */
typedef struct {
    ts_queue *queues; /* of all threads; null: this one works alone */
    int leader;
    int members;      /* the team's queues are those of `leader` and the next ones */
    int home;         /* the queue to begin with */
    int guest;        /* takes from the back of the leader's queue, the only one; the leader takes from its front */
    uint32_t step;    /* counts steps; greater than those that any of the queues has held before */
    int tickets, done; /* of this step: all, and this thread's */
} ts_share;

/* `count` queues without tickets, or null. Free with free(). */
ts_queue *ts_queues_new(int count);

/* Forgets earlier steps. No thread may be using the queues. */
void ts_queues_reset(ts_queue *queues, int count);

/* Around every step, in the same order in all threads of a team. For the leader, the end waits until the step is done. */
void ts_share_begin(ts_share *share);
void ts_share_end(ts_share *share);

/* More of the `total` units of a step, the same number in all threads of the team: units [from, to). 0: none is left. */
int ts_share_take(ts_share *share, int total, int *from, int *to);

#endif
