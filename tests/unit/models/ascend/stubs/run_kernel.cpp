// The Ascend C operator on the instructions of kernel_operator.h, for ctypes.
#include "conv_bias_relu.cpp"

using namespace tessera;

static Shape shape_of(const uint32_t *v) {
    return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10]};
}

extern "C" int choose_tile(const uint32_t *shape, const uint32_t *buffers, uint32_t *tile) {
    Tile chosen;
    if (!ChooseTile(shape_of(shape), {buffers[0], buffers[1], buffers[2], buffers[3]}, chosen))
        return 0;
    memcpy(tile, &chosen, sizeof chosen);
    return 1;
}

extern "C" void input_window(const uint32_t *shape, uint32_t row, uint32_t rows, uint32_t *window) {
    const Window found = InputWindow(shape_of(shape), row, rows);
    memcpy(window, &found, sizeof found);
}

extern "C" void let_barriers_wait(int wait) {
    AscendC::barriers_wait = wait;
}

extern "C" void run(const uint32_t *shape, const uint32_t *buffers, const uint32_t *tile, uint32_t cores, uint8_t *x,
                    uint8_t *filter, uint8_t *bias, uint8_t *y) {
    const Shape s = shape_of(shape);
    TilingData tiling;
    memcpy(&tiling, shape, 11 * sizeof(uint32_t));
    memcpy(&tiling.rows, tile, 4 * sizeof(uint32_t));
    const size_t pixels = static_cast<size_t>(s.batch) * s.height * s.width;
    const size_t results = static_cast<size_t>(s.batch) * OutHeight(s) * OutWidth(s);
    for (uint32_t index = 0; index < cores; index++) {
        AscendC::core = {index, cores, buffers[0], buffers[1], buffers[2], buffers[3], 1024, {}, {}};
        AscendC::core.memory = {{x, pixels * s.c1 * 32},
                                {filter, static_cast<size_t>(s.c1) * 9 * s.cout1 * 512},
                                {bias, static_cast<size_t>(s.cout1) * 64},
                                {y, results * s.cout1 * 32}};
        conv_bias_relu(x, filter, bias, y, nullptr, reinterpret_cast<uint8_t *>(&tiling));
    }
}
