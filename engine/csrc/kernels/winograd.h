/*
 * 3x3 convolutions of stride 1 with a quarter of the multiplications, exact to the bit: Winograd's F(4x4, 3x3) in whole
 * numbers (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). Its products are of 16 bits, which
 * are at most twice as slow as those of 8 bits.
 *
 * An output tile of 4x4 pixels is A'[(G g G') * (B' d B)]A with d 6x6 pixels and g 3x3 weights. B holds whole numbers
 * whose rows add up to at most 10 in magnitude, so B' d B is at most 100 * 255 = 25500. The rows of G are multiplied by
 * 24, the last one by 8, which makes them whole with sums of at most 12: G g G' is at most 144 * 128 = 18432. So both
 * factors fit 16 bits, and so does a pair of their products 32 bits. All that follows is addition, which may wrap: the
 * result is 24 * 24 = 576 times the sum of the convolution modulo 2^32. Multiplied by the inverse of 9 it is 64 times the
 * sum, and the sum itself follows as long as it stays within 2^25, which conv/winograd.c proves from the weights.
 *
 * At the right and lower edge fewer than four columns or rows of a tile may be wanted, at 14x14 in almost every other
 * tile, at 7x7 in three of four. There F(3, 3) or F(2, 3) takes its place in that direction: of the six points 0, 1, -1, 2,
 * -2 and infinity they leave out -2, and 2 and -2, and so one or two of six products, and need no weights of their own.
 * Their G would be a multiple of the same rows, by which their B is multiplied instead. The positive part of a row of B
 * and its negative part then add up to (p, n) of at most (6, 6) or (3, 9), so with pixels of at most 255 an element of
 * B' d B is at most (3 * 3 + 9 * 9) * 255 = 22950.
 */
#ifndef TS_WINOGRAD_H
#define TS_WINOGRAD_H

#include "kernels/contract.h"

enum {
    TS_WINOGRAD_OUT = 4,        /* output pixels of a tile, in each direction */
    TS_WINOGRAD_IN = 6,         /* input pixels */
    TS_WINOGRAD_POSITIONS = 36, /* independent products: elements of a transformed tile */
};

/* How much narrower or lower than a full tile one is: its form is TS_WINOGRAD_CUTS * (rows less) + (columns less). */
enum { TS_WINOGRAD_CUTS = 3, TS_WINOGRAD_FORMS = TS_WINOGRAD_CUTS * TS_WINOGRAD_CUTS };

/* Whether a tile that is so much narrower needs the products of a column of positions; the same for rows. */
static inline int ts_winograd_needs(int cut, int line)
{
    return line == TS_WINOGRAD_IN - 1 || line < TS_WINOGRAD_IN - 1 - cut;
}

typedef struct {
    int groups; /* of channels that one call of `spread` takes, 1 or 2 */

    /* Measured: layers with more transformed weights, or a smaller share of dwords that are not zero, are faster directly. */
    int most_weight_bytes, direct_percent;

    /*
     * B' d B of `groups` groups of channels, for a tile of each form: `columns` are offsets from `rows`, and the second
     * group lies `next` bytes behind the first; element p goes to out + p * stride, [groups][TS_GROUP] s16. Only the
     * elements that it needs.
     */
    void (*spread[TS_WINOGRAD_FORMS])(const uint8_t *const rows[TS_WINOGRAD_IN], ptrdiff_t next,
                                      const int32_t columns[TS_WINOGRAD_IN], int16_t *out, size_t stride);

    /*
     * The products of one position and one group of output channels: [tiles][2 * pairs] s16 by weights
     * [pairs][TS_GROUP][2] s16 into [tiles][TS_GROUP] s32. `stride`: elements between input tiles.
     */
    void (*multiply)(const int16_t *input, size_t stride, const int16_t *weights, int pairs, int tiles, int32_t *products);

    /*
     * Sums products + p * stride, [TS_GROUP] s32, into the output pixels of a tile, and finishes and stores them. `tile`
     * says where row 0 goes, the number of columns in `pixels`, channel and epilogue; `output_row` and `residual_row` are
     * bytes from row to row.
     */
    void (*finish[TS_WINOGRAD_FORMS])(ts_tile *tile, int rows, ptrdiff_t output_row, ptrdiff_t residual_row,
                                      const int32_t *products, size_t stride);
} ts_winograd_kernel;

#endif
