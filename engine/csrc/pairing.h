/*
 * Which 8-bit products may be summed in 16 bits without overflow, proven from the weights.
 *
 * vpmaddubsw adds two products of u8 activations and s8 weights in 16 bits and saturates. Whatever the activations, a sum
 * of products stays within 16 bits when its positive weights add up to at most 128 and its negative ones to at least
 * -128: 255 * 128 = 32640. Weights are constants, so this is decided when they are packed:
 *
 * - a dword with a pair that does not fit is cut into two, each with about half of every weight;
 * - two members whose sums fit together are twins: their products are added in 16 bits and widened once;
 * - members without a twin are singles.
 */
#ifndef TS_PAIRING_H
#define TS_PAIRING_H

#include "tile.h"

/*
 * Orders `dwords` dwords of the reduction of one block: their weights [dwords][16 lanes][4] and offsets. Writes twins to
 * `twins` and the rest to `singles`, weights in the same order; each needs room for 2 * dwords members. Returns 0 and
 * sets the numbers of members, or -1 when memory runs out.
 */
int ts_pair_dwords(const int8_t *weights, const int32_t *offsets, int dwords, ts_member *twins, int8_t *twin_weights,
                   int *twin_members, ts_member *singles, int8_t *single_weights, int *single_members);

#endif
