/*
 * Which 8-bit products may be summed in 16 bits without overflow, proven from the weights.
 *
 * vpmaddubsw adds two products of u8 activations and s8 weights in 16 bits and saturates. Whatever the activations, a sum
 * of products stays within 16 bits when its positive weights add up to at most 128 and its negative ones to at least
 * -128: 255 * 128 = 32640. Weights are constants, so this is decided when they are packed:
 *
 * - a dword of zeros is left out;
 * - a dword with a pair that does not fit is cut into two members, each with about half of every weight;
 * - up to TS_CHAIN members whose sums fit together are a chain: their products are added in 16 bits and widened once.
 */
#ifndef TS_CHAIN_FORMING_H
#define TS_CHAIN_FORMING_H

#include "kernels/contract.h"

/* Chains as they are formed: those of n members are in element n - 1, one after another. */
typedef struct {
    ts_member *members[TS_CHAIN];
    int8_t *weights[TS_CHAIN]; /* [members][16 lanes][4] */
    int counts[TS_CHAIN];      /* members so far */
} ts_chains;

/*
 * Appends chains for `dwords` dwords of the reduction of one block: their weights [dwords][16 lanes][4] and offsets. Every
 * list needs room for 2 * dwords more members. Returns 0, or -1 when memory runs out.
 */
int ts_form_chains(const int8_t *weights, const int32_t *offsets, int dwords, ts_chains *chains);

#endif
