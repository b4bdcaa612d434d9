/* Joining the dwords of a reduction by the range of their sums. */
#include "conv/chain_forming.h"

#include <stdlib.h>
#include <string.h>

enum {
    SUMS = 2 * TS_GROUP,          /* pairs of one member */
    BYTES = 4 * TS_GROUP,         /* weights of one member */
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

/* One candidate, two with the halves of weights that are too large together, or none for zeros. Returns how many. */
static int make_candidates(const int8_t *weights, int32_t offset, candidate *c)
{
    int8_t half[BYTES], rest[BYTES];
    c[0].member.offset = c[1].member.offset = offset;
    set_weights(c, weights);
    if (c->largest <= LIMIT)
        return c->largest > 0;
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

/* Whether the candidate's sums fit those of the chain so far. */
static int fits(const uint8_t *sums, const candidate *c)
{
    int over = 0;
    for (int i = 0; i < 2 * SUMS; i++)
        over |= sums[i] + c->sums[i] > LIMIT;
    return !over;
}

/*
 * Takes open candidates from `from` on into a chain, each the first that still fits; what does not fit now will not fit
 * later. Returns how many.
 */
static int take_chain(candidate **open, int from, int count, const candidate **chain)
{
    uint8_t sums[2 * SUMS] = {0};
    int length = 0;
    for (int i = from; i < count && length < TS_CHAIN; i++) {
        if (!open[i] || !fits(sums, open[i]))
            continue;
        for (int k = 0; k < 2 * SUMS; k++)
            sums[k] = (uint8_t)(sums[k] + open[i]->sums[k]);
        chain[length++] = open[i];
        open[i] = NULL;
    }
    return length;
}

static void put_chain(const candidate *const *chain, int length, ts_chains *chains)
{
    int *count = &chains->counts[length - 1];
    for (int i = 0; i < length; i++, ++*count) {
        chains->members[length - 1][*count] = chain[i]->member;
        memcpy(chains->weights[length - 1] + (size_t)*count * BYTES, chain[i]->weights, BYTES);
    }
}

int ts_form_chains(const int8_t *weights, const int32_t *offsets, int dwords, ts_chains *chains)
{
    candidate *all = malloc(2 * (size_t)dwords * sizeof *all);
    candidate **open = malloc(2 * (size_t)dwords * sizeof *open);
    int count = 0;
    for (int i = 0; all && open && i < dwords; i++)
        count += make_candidates(weights + (size_t)i * BYTES, offsets[i], all + count);
    for (int i = 0; i < count; i++)
        open[i] = all + i;
    if (count)
        qsort(open, (size_t)count, sizeof *open, by_largest);
    for (int i = 0; i < count; i++) {
        const candidate *chain[TS_CHAIN];
        const int length = take_chain(open, i, count, chain);
        if (length)
            put_chain(chain, length, chains);
    }
    const int failed = !all || !open;
    free(all);
    free(open);
    return failed ? -1 : 0;
}
