/* Matching the dwords of a reduction by the range of their sums. */
#include "pairing.h"

#include <stdlib.h>
#include <string.h>

enum {
    SUMS = 2 * TS_LANES,          /* pairs of one member */
    BYTES = 4 * TS_LANES,         /* weights of one member */
    LIMIT = 128,                  /* 255 * 128 fits 16 bits */
};

/* A member before it has found its place: magnitudes of the positive and the negative sum of each pair. */
typedef struct {
    uint8_t sums[2 * SUMS];
    int8_t weights[BYTES];
    ts_member member;
    int largest;
} candidate;

/* Sets the weights and their sums: vpmaddubsw adds bytes 0 and 1 of a dword, and bytes 2 and 3. */
static void set_weights(candidate *c, const int8_t *weights)
{
    c->largest = 0;
    memcpy(c->weights, weights, BYTES);
    for (int pair = 0; pair < SUMS; pair++) {
        const int a = c->weights[2 * pair], b = c->weights[2 * pair + 1];
        const int positive = (a > 0 ? a : 0) + (b > 0 ? b : 0), negative = positive - a - b;
        const int larger = positive > negative ? positive : negative;
        c->largest = larger > c->largest ? larger : c->largest;
        c->sums[pair] = (uint8_t)(positive < 255 ? positive : 255);
        c->sums[SUMS + pair] = (uint8_t)(negative < 255 ? negative : 255);
    }
}

/* One candidate, or two with the halves of weights that are too large together. Returns how many. */
static int make_candidates(const int8_t *weights, int32_t offset, candidate *c)
{
    int8_t half[BYTES], rest[BYTES];
    c[0].member.offset = c[1].member.offset = offset;
    set_weights(c, weights);
    if (c->largest <= LIMIT)
        return 1;
    for (int i = 0; i < BYTES; i++) {
        half[i] = (int8_t)(weights[i] / 2);
        rest[i] = (int8_t)(weights[i] - half[i]);
    }
    set_weights(c, half);
    set_weights(c + 1, rest);
    return 2;
}

/* Largest sums first: they have the fewest partners. */
static int by_largest(const void *a, const void *b)
{
    const candidate *x = *(candidate *const *)a, *y = *(candidate *const *)b;
    return x->largest != y->largest ? y->largest - x->largest : (x > y) - (x < y);
}

static int fit_together(const candidate *a, const candidate *b)
{
    int over = 0;
    for (int i = 0; i < 2 * SUMS; i++)
        over |= a->sums[i] + b->sums[i] > LIMIT;
    return !over;
}

static void put(const candidate *c, ts_member *members, int8_t *weights, int *count)
{
    members[*count] = c->member;
    memcpy(weights + (size_t)*count * BYTES, c->weights, BYTES);
    ++*count;
}

int ts_pair_dwords(const int8_t *weights, const int32_t *offsets, int dwords, ts_member *twins, int8_t *twin_weights,
                   int *twin_members, ts_member *singles, int8_t *single_weights, int *single_members)
{
    candidate *all = malloc(2 * (size_t)dwords * sizeof *all);
    candidate **open = malloc(2 * (size_t)dwords * sizeof *open);
    int count = 0;
    *twin_members = *single_members = 0;
    for (int i = 0; all && open && i < dwords; i++)
        count += make_candidates(weights + (size_t)i * BYTES, offsets[i], all + count);
    for (int i = 0; i < count; i++)
        open[i] = all + i;
    if (count)
        qsort(open, (size_t)count, sizeof *open, by_largest);
    for (int i = 0; i < count; i++) {
        int partner = i + 1;
        if (!open[i])
            continue;
        while (partner < count && !(open[partner] && fit_together(open[i], open[partner])))
            partner++;
        if (partner == count) {
            put(open[i], singles, single_weights, single_members);
            continue;
        }
        put(open[i], twins, twin_weights, twin_members);
        put(open[partner], twins, twin_weights, twin_members);
        open[partner] = NULL;
    }
    const int failed = !all || !open;
    free(all);
    free(open);
    return failed ? -1 : 0;
}
