// Padding and tiles of a 3x3 convolution in NC1HWC0, as in tbe/geometry.py: plain arithmetic for host and device.
#ifndef TESSERA_CONV_GEOMETRY_H
#define TESSERA_CONV_GEOMETRY_H

#include <cstdint>

#ifndef TESSERA_FUNCTION
#define TESSERA_FUNCTION inline
#endif

namespace tessera {
constexpr uint32_t C0 = 16;
constexpr uint32_t FRACTAL = C0 * C0;
constexpr uint32_t KERNEL = 3;
constexpr uint32_t MOST_N1 = 4;
constexpr uint32_t BIAS_BYTES = MOST_N1 * C0 * 4;
constexpr uint32_t LARGEST_STRIDE_FIELD = 65535;

struct Shape {
    uint32_t batch, c1, height, width, cout1, strideH, strideW, padTop, padBottom, padLeft, padRight;
};

struct Buffers {
    uint32_t l1, l0a, l0b, l0c;
};

struct Tile {
    uint32_t rows, m, k1, n1;
};

struct Window {
    uint32_t first, count, padTop, padBottom;
};

TESSERA_FUNCTION uint32_t CeilDiv(uint32_t value, uint32_t unit) {
    return (value + unit - 1) / unit;
}

TESSERA_FUNCTION uint32_t Smaller(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

TESSERA_FUNCTION uint32_t OutputSize(uint32_t size, uint32_t before, uint32_t after, uint32_t stride) {
    return (size + before + after - KERNEL) / stride + 1;
}

TESSERA_FUNCTION uint32_t OutHeight(const Shape &shape) {
    return OutputSize(shape.height, shape.padTop, shape.padBottom, shape.strideH);
}

TESSERA_FUNCTION uint32_t OutWidth(const Shape &shape) {
    return OutputSize(shape.width, shape.padLeft, shape.padRight, shape.strideW);
}

TESSERA_FUNCTION Window InputWindow(const Shape &shape, uint32_t firstRow, uint32_t rows) {
    const int32_t above = static_cast<int32_t>(firstRow * shape.strideH) - static_cast<int32_t>(shape.padTop);
    const int32_t below = above + static_cast<int32_t>((rows - 1) * shape.strideH + KERNEL);
    const int32_t height = static_cast<int32_t>(shape.height);
    const int32_t first = above > 0 ? above : 0;
    const int32_t end = below < height ? below : height;
    return {static_cast<uint32_t>(first), static_cast<uint32_t>(end - first), static_cast<uint32_t>(first - above),
            static_cast<uint32_t>(below - end)};
}

// False where a single row does not fit; see choose_tile in tbe/geometry.py.
TESSERA_FUNCTION bool ChooseTile(const Shape &shape, const Buffers &buffers, Tile &tile) {
    const uint32_t k1 = shape.c1 * KERNEL * KERNEL;
    const uint32_t half = (buffers.l1 - BIAS_BYTES) / 2;
    tile.n1 = Smaller(Smaller(shape.cout1, MOST_N1), half / (k1 * FRACTAL * 2));
    tile.rows = OutHeight(shape);
    while (tile.rows > 0) {
        const uint32_t needed = Smaller(shape.height, (tile.rows - 1) * shape.strideH + KERNEL);
        if (needed * shape.width * shape.c1 * C0 * 2 <= half)
            break;
        tile.rows--;
    }
    if (tile.n1 < 1 || tile.rows < 1 || shape.height * shape.width > LARGEST_STRIDE_FIELD)
        return false;
    tile.k1 = Smaller(Smaller(k1, 4), buffers.l0b / (tile.n1 * FRACTAL * 2 * 2));
    const uint32_t pixels = CeilDiv(tile.rows * OutWidth(shape), C0) * C0;
    const uint32_t fits = Smaller(buffers.l0a / (tile.k1 * C0 * 2 * 2), buffers.l0c / (tile.n1 * C0 * 4));
    tile.m = Smaller(pixels, fits) / C0 * C0;
    return true;
}
} // namespace tessera
#endif
