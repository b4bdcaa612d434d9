/*
 * Handing out the work of a step as threads become free.
 *
 * Cores are never equally fast at the same moment, least of all rented ones, so a split made in advance waits for the
 * slowest. Here a step is cut into tickets, which lie in queues, one queue for each thread, each in its own cache lines. A
 * thread takes a quarter of what is left at the front of its queue, again and again; with nothing left it takes from the
 * back of another's. So neighbouring work stays with one thread, nobody touches another's queue before his own is
 * empty, and the last tickets are small.
 *
 * A team is a leader, who opens every step and waits until it is done, and others who walk through the same steps: who
 * comes late or is held up finds steps closed and leaves them out. Nobody but the leader is waited for, except by him for
 * tickets that were taken.
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
    int guest;        /* of a leader who has the only queue: takes from its back, he from its front */
    uint32_t step;    /* counts steps; greater than those that any of the queues has held before */
    int tickets, done; /* of this step: all, and this thread's */
} ts_share;

/* `count` queues without tickets, or null. Free with free(). */
ts_queue *ts_queues_new(int count);

/* Forgets earlier steps. No thread may be using the queues. */
void ts_queues_reset(ts_queue *queues, int count);

/* Around every step, in the same order in all threads of a team. The leader's end waits until all its work is done. */
void ts_share_begin(ts_share *share);
void ts_share_end(ts_share *share);

/* More of the `total` units of a step, the same number in all threads of the team: units [from, to). 0: none is left. */
int ts_share_take(ts_share *share, int total, int *from, int *to);

#endif
