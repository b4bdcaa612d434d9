/*
 * 3x3 convolutions of stride 1 with a quarter of the multiplications, exact to the bit: Winograd's F(4x4, 3x3) in whole
 * numbers (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015), where direct 8-bit products are
 * no faster than 16-bit ones.
 *
 * An output tile of 4x4 pixels is A'[(G g G') * (B' d B)]A with d 6x6 pixels and g 3x3 weights. B holds whole numbers
 * whose rows add up to at most 10 in magnitude, so B' d B is at most 100 * 255 = 25500. The rows of G are multiplied by
 * 24, the last one by 8, which makes them whole with sums of at most 12: G g G' is at most 144 * 128 = 18432. So both
 * factors fit 16 bits, and so does a pair of their products 32 bits. All that follows is addition, which may wrap: the
 * result is 24 * 24 = 576 times the sum of the convolution modulo 2^32. Multiplied by the inverse of 9 it is 64 times the
 * sum, and the sum itself follows as long as it stays within 2^25, which `ts_winograd_takes` proves from the weights.
 *
 * At the right and lower edge a tile may have only one or two columns or rows that are wanted, at 14x14 a quarter of all.
 * There F(2, 3) takes its place in that direction: of the six points 0, 1, -1, 2, -2 and infinity it needs the first three
 * and the last, so it does with four of the six products and with the same weights. Its own G would have -4, -3, -3 and 1
 * times theirs, which its B is multiplied by instead: rows of at most 8 in magnitude.
 */
#ifndef TS_WINOGRAD_H
#define TS_WINOGRAD_H

#include "tile.h"

enum {
    TS_WINOGRAD_OUT = 4,        /* output pixels of a tile, in each direction */
    TS_WINOGRAD_NARROW_OUT = 2, /* those of a tile that is narrow in a direction */
    TS_WINOGRAD_IN = 6,         /* input pixels */
    TS_WINOGRAD_POSITIONS = 36, /* independent products: elements of a transformed tile */
};

/* In which directions a tile is narrow, as bits. */
typedef enum { TS_FULL_TILE = 0, TS_NARROW_X = 1, TS_NARROW_Y = 2, TS_WINOGRAD_FORMS = 4 } ts_winograd_form;

/* Whether tiles that are narrow in a direction need the products of a row or column of positions. */
static inline int ts_winograd_narrow_needs(int line)
{
    return line != 3 && line != 4;
}

typedef struct {
    const char *name;
    uint32_t features;

    /*
     * B' d B of 16 channels, for a tile of each form: `columns` are offsets from `rows`; element p goes to out + p * stride,
     * [16] s16. Of a narrow tile only the elements that it needs.
     */
    void (*spread[TS_WINOGRAD_FORMS])(const uint8_t *const rows[TS_WINOGRAD_IN], const int32_t columns[TS_WINOGRAD_IN],
                                      int16_t *out, size_t stride);

    /*
     * The products of one position and 16 output channels: [tiles][2 * pairs] s16 by weights [pairs][16 lanes][2] s16 into
     * [tiles][16] s32. `stride`: elements between input tiles.
     */
    void (*multiply)(const int16_t *input, size_t stride, const int16_t *weights, int pairs, int tiles, int32_t *products);

    /*
     * Sums products + p * stride, [16] s32, into the output pixels of a tile, and finishes and stores them. `tile` says
     * where row 0 goes, the number of columns in `pixels`, channel and epilogue; the steps are bytes from row to row.
     */
    void (*finish[TS_WINOGRAD_FORMS])(ts_tile *tile, int rows, ptrdiff_t output_step, ptrdiff_t residual_step,
                                      const int32_t *products, size_t stride);
} ts_winograd_kernel;

/* Null where no kernel beats direct convolution with these features. */
const ts_winograd_kernel *ts_find_winograd_kernel(uint32_t features);

#endif
