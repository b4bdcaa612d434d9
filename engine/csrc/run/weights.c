#include "run/weights.h"

#include "run/memory.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    void *at;
    size_t bytes;
    uint64_t hash;
} kept;

struct ts_weights {
    atomic_int owners;
    ts_region *region; /* in running order */
    kept *all;
    int count, room;
    int known, next; /* how many were there when the last owner came, and where its next equal should be */
    size_t bytes;
};

ts_weights *ts_weights_new(void)
{
    ts_weights *weights = calloc(1, sizeof *weights);
    if (weights)
        atomic_init(&weights->owners, 1);
    return weights;
}

ts_weights *ts_weights_share(ts_weights *weights)
{
    atomic_fetch_add(&weights->owners, 1);
    weights->known = weights->count;
    weights->next = 0;
    return weights;
}

void ts_weights_free(ts_weights *weights)
{
    if (!weights || atomic_fetch_sub(&weights->owners, 1) > 1)
        return;
    ts_region_free(weights->region);
    free(weights->all);
    free(weights);
}

void *ts_weights_take(ts_weights *weights, size_t bytes)
{
    return ts_region_take(&weights->region, bytes);
}

static uint64_t hash_of(const void *data, size_t bytes)
{
    uint64_t hash = 0x9E3779B97F4A7C15u ^ bytes, word = 0;
    size_t at = 0;
    for (; at + sizeof word <= bytes; at += sizeof word) {
        memcpy(&word, (const uint8_t *)data + at, sizeof word);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, (const uint8_t *)data + at, bytes - at);
    return (hash ^ word) * 0xD6E8FEB86659FD93u;
}

static void *find_equal(ts_weights *weights, const kept *packed)
{
    for (int i = 0; i < weights->known; i++) {
        const int place = (weights->next + i) % weights->known;
        const kept *other = &weights->all[place];
        if (other->bytes == packed->bytes && other->hash == packed->hash && !memcmp(other->at, packed->at, packed->bytes)) {
            weights->next = place + 1;
            return other->at;
        }
    }
    return NULL;
}

void *ts_weights_keep(ts_weights *weights, void *packed, size_t bytes)
{
    const kept entry = {.at = packed, .bytes = bytes, .hash = hash_of(packed, bytes)};
    void *equal = find_equal(weights, &entry);
    if (equal) {
        ts_region_give(weights->region, packed, bytes);
        return equal;
    }
    weights->bytes += bytes;
    if (weights->count == weights->room) {
        const int room = weights->room ? 2 * weights->room : 256;
        kept *all = realloc(weights->all, (size_t)room * sizeof *all);
        if (!all)
            return packed; /* it is used all the same, and shared with nobody */
        weights->all = all;
        weights->room = room;
    }
    weights->all[weights->count++] = entry;
    return packed;
}

size_t ts_weights_bytes(const ts_weights *weights)
{
    return weights->bytes;
}
