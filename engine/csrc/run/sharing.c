#include "run/sharing.h"
#include "run/threads.h"

#include <stdlib.h>

enum {
    TICKETS = 32,      /* of one queue: the last one is 3 % of a thread's work at most */
    TAKEN_SHARE = 4,   /* a taker takes this part of what is left */
    MOST_VICTIMS = 8,  /* queues, its own included, that a member looks into; the leader looks into all */
};

_Static_assert(TICKETS * TS_MAX_THREADS < 1 << 16, "ticket numbers take 16 bits");

static uint64_t pack(uint32_t step, int first, int end)
{
    return (uint64_t)step << 32 | (uint64_t)first << 16 | (uint64_t)end;
}

ts_queue *ts_queues_new(int count)
{
    ts_queue *queues = aligned_alloc(TS_CACHE_LINE, (size_t)count * sizeof *queues);
    if (queues)
        ts_queues_reset(queues, count);
    return queues;
}

void ts_queues_reset(ts_queue *queues, int count)
{
    for (int i = 0; i < count; i++) {
        atomic_store_explicit(&queues[i].tickets, 0, memory_order_relaxed);
        atomic_store_explicit(&queues[i].helped, 0, memory_order_relaxed);
    }
}

void ts_share_begin(ts_share *share)
{
    share->step++;
    share->tickets = share->done = 0;
}

static int leads(const ts_share *share)
{
    return share->home == share->leader && !share->guest;
}

void ts_share_end(ts_share *share)
{
    if (!share->queues || !share->tickets)
        return;
    atomic_int *helped = &share->queues[share->leader].helped;
    if (!leads(share)) {
        if (share->done)
            atomic_fetch_add_explicit(helped, share->done, memory_order_release);
        return;
    }
    const int others = share->tickets - share->done;
    if (!others)
        return;
    for (int spins = 0; atomic_load_explicit(helped, memory_order_acquire) != others;)
        ts_relax(&spins);
    atomic_store_explicit(helped, 0, memory_order_relaxed);
}

/* The leader's own queue is opened last: a thread that takes from it may go on to any other, so those are open by then. */
static void open_step(ts_share *share)
{
    for (int i = share->members - 1; i >= 0; i--)
        atomic_store_explicit(&share->queues[share->leader + i].tickets,
                              pack(share->step, share->tickets * i / share->members, share->tickets * (i + 1) / share->members),
                              memory_order_release);
}

static void await_step(const ts_share *share)
{
    const _Atomic uint64_t *tickets = &share->queues[share->home].tickets;
    for (int spins = 0; (uint32_t)(atomic_load_explicit(tickets, memory_order_acquire) >> 32) < share->step;)
        ts_relax(&spins);
}

/* Returns how many tickets from `first` on were taken. */
static int take_from(ts_queue *queue, uint32_t step, int back, int *first)
{
    uint64_t seen = atomic_load_explicit(&queue->tickets, memory_order_acquire);
    for (;;) {
        const int begin = (int)(seen >> 16 & 0xffff), end = (int)(seen & 0xffff), left = end - begin;
        if ((uint32_t)(seen >> 32) != step || left == 0)
            return 0;
        const int count = left < TAKEN_SHARE ? 1 : left / TAKEN_SHARE;
        const uint64_t rest = back ? pack(step, begin, end - count) : pack(step, begin + count, end);
        *first = back ? end - count : begin;
        if (atomic_compare_exchange_weak_explicit(&queue->tickets, &seen, rest, memory_order_acq_rel, memory_order_acquire))
            return count;
    }
}

static int take_tickets(const ts_share *share, int *first)
{
    const int mine = share->home - share->leader;
    const int looks = mine && share->members > MOST_VICTIMS ? MOST_VICTIMS : share->members;
    for (int i = 0; i < looks; i++) {
        const int other = (mine + i) % share->members;
        const int count = take_from(&share->queues[share->leader + other], share->step, i > 0 || share->guest, first);
        if (count)
            return count;
    }
    return 0;
}

int ts_share_take(ts_share *share, int total, int *from, int *to)
{
    const int begins = !share->tickets;
    if (total == 0)
        return 0;
    if (!share->queues) {
        share->tickets = 1;
        *from = 0;
        *to = total;
        return begins;
    }
    if (begins) {
        const int most = TICKETS * share->members;
        share->tickets = total < most ? total : most;
        if (leads(share))
            open_step(share);
        else
            await_step(share);
    }
    int first = 0;
    const int count = take_tickets(share, &first);
    share->done += count;
    *from = (int)((int64_t)total * first / share->tickets);
    *to = (int)((int64_t)total * (first + count) / share->tickets);
    return count;
}
