// y = ReLU(conv3x3(x, filter) + bias) on the cube unit: fp16 in, fp32 sums, fp16 out.
//
// A block is some rows of one image and up to 64 output channels. Its image rows and weights are brought into L1 once.
// LoadData then makes im2col rows out of the NC1HWC0 image on the way to L0A, while FRACTAL_Z weights already are what
// L0B takes. Mmad starts from the bias, which lies in the bias table, and sums in L0C; Fixpipe applies ReLU, rounds to
// fp16 and writes NC1HWC0, because the pixels of a channel block are consecutive there.
#define TESSERA_FUNCTION __aicore__ inline
#include "kernel_operator.h"
#include "geometry.h"

namespace {
using namespace AscendC;

// As in CANN's own matmul: from ten fractals on, the cube unit takes longer than its results need to reach L0C.
constexpr uint32_t LEAST_UNBARRED = 10;

class ConvBiasRelu {
public:
    __aicore__ inline ConvBiasRelu(const tessera::Shape &shape, const tessera::Tile &tile)
        : shape(shape), tile(tile), k1(shape.c1 * tessera::KERNEL * tessera::KERNEL),
          outHeight(tessera::OutHeight(shape)), outWidth(tessera::OutWidth(shape)) {}

    __aicore__ inline void Init(GM_ADDR x, GM_ADDR filter, GM_ADDR bias, GM_ADDR y) {
        xGm.SetGlobalBuffer((__gm__ half *)x);
        filterGm.SetGlobalBuffer((__gm__ half *)filter);
        biasGm.SetGlobalBuffer((__gm__ float *)bias);
        yGm.SetGlobalBuffer((__gm__ half *)y);
        const uint32_t rows = tessera::Smaller(shape.height, (tile.rows - 1) * shape.strideH + tessera::KERNEL);
        pipe.InitBuffer(imageQueue, 1, rows * shape.width * shape.c1 * tessera::C0 * sizeof(half));
        pipe.InitBuffer(filterQueue, 1, k1 * tile.n1 * tessera::FRACTAL * sizeof(half));
        pipe.InitBuffer(biasQueue, 1, tile.n1 * tessera::C0 * sizeof(float));
        pipe.InitBuffer(biasTableQueue, 1, tile.n1 * tessera::C0 * sizeof(float));
        pipe.InitBuffer(leftQueue, 2, tile.m * tile.k1 * tessera::C0 * sizeof(half));
        pipe.InitBuffer(rightQueue, 2, tile.k1 * tile.n1 * tessera::FRACTAL * sizeof(half));
        pipe.InitBuffer(sumQueue, 1, tile.m * tile.n1 * tessera::C0 * sizeof(float));
    }

    __aicore__ inline void Process() {
        const uint32_t rowBlocks = tessera::CeilDiv(outHeight, tile.rows);
        const uint32_t channelBlocks = tessera::CeilDiv(shape.cout1, tile.n1);
        // Blocks with the same weights follow each other.
        for (uint32_t block = GetBlockIdx(); block < channelBlocks * shape.batch * rowBlocks; block += GetBlockNum()) {
            const uint32_t image = block / rowBlocks % shape.batch;
            Block(block / rowBlocks / shape.batch * tile.n1, image, block % rowBlocks * tile.rows);
        }
    }

private:
    __aicore__ inline void Block(uint32_t firstChannel, uint32_t image, uint32_t firstRow) {
        const uint32_t n1 = tessera::Smaller(tile.n1, shape.cout1 - firstChannel);
        const uint32_t rows = tessera::Smaller(tile.rows, outHeight - firstRow);
        const tessera::Window window = tessera::InputWindow(shape, firstRow, rows);
        LoadImage(image, window);
        LoadFilter(firstChannel, n1);
        LoadBias(firstChannel, n1);
        LocalTensor<half> imageRows = imageQueue.DeQue<half>();
        LocalTensor<half> filter = filterQueue.DeQue<half>();
        LocalTensor<float> bias = biasTableQueue.DeQue<float>();
        const uint32_t pixels = rows * outWidth;
        for (uint32_t m = 0; m < pixels; m += tile.m) {
            const uint32_t count = tessera::Smaller(tile.m, pixels - m);
            Multiply(imageRows, filter, bias, window, m, tessera::CeilDiv(count, tessera::C0) * tessera::C0, n1);
            const uint64_t plane = static_cast<uint64_t>(image * shape.cout1 + firstChannel) * outHeight * outWidth;
            Store((plane + firstRow * outWidth + m) * tessera::C0, count, n1);
        }
        imageQueue.FreeTensor(imageRows);
        filterQueue.FreeTensor(filter);
        biasTableQueue.FreeTensor(bias);
    }

    // Counts and gaps of DataCopy are in units of 32 bytes, which is a pixel of a channel block.
    __aicore__ inline void LoadImage(uint32_t image, const tessera::Window &window) {
        LocalTensor<half> rows = imageQueue.AllocTensor<half>();
        DataCopyParams copy;
        copy.blockCount = shape.c1;
        copy.blockLen = window.count * shape.width;
        copy.srcStride = (shape.height - window.count) * shape.width;
        copy.dstStride = 0;
        const uint64_t row = static_cast<uint64_t>(image) * shape.c1 * shape.height + window.first;
        DataCopy(rows, xGm[row * shape.width * tessera::C0], copy);
        imageQueue.EnQue(rows);
    }

    __aicore__ inline void LoadFilter(uint32_t firstChannel, uint32_t n1) {
        LocalTensor<half> filter = filterQueue.AllocTensor<half>();
        DataCopyParams copy;
        copy.blockCount = k1;
        copy.blockLen = n1 * tessera::C0;
        copy.srcStride = (shape.cout1 - n1) * tessera::C0;
        copy.dstStride = 0;
        DataCopy(filter, filterGm[static_cast<uint64_t>(firstChannel) * tessera::FRACTAL], copy);
        filterQueue.EnQue(filter);
    }

    __aicore__ inline void LoadBias(uint32_t firstChannel, uint32_t n1) {
        LocalTensor<float> bias = biasQueue.AllocTensor<float>();
        DataCopy(bias, biasGm[firstChannel * tessera::C0], n1 * tessera::C0);
        biasQueue.EnQue(bias);
        bias = biasQueue.DeQue<float>();
        LocalTensor<float> table = biasTableQueue.AllocTensor<float>();
        DataCopyParams copy;
        copy.blockCount = 1;
        copy.blockLen = n1; // units of 64 bytes on this path
        copy.srcStride = 0;
        copy.dstStride = 0;
        DataCopy(table, bias, copy);
        biasTableQueue.EnQue(table);
        biasQueue.FreeTensor(bias);
    }

    __aicore__ inline void Multiply(const LocalTensor<half> &image, const LocalTensor<half> &filter,
                                    const LocalTensor<float> &bias, const tessera::Window &window, uint32_t m,
                                    uint32_t mExtension, uint32_t n1) {
        LocalTensor<float> sums = sumQueue.AllocTensor<float>();
        for (uint32_t k = 0; k < k1; k += tile.k1) {
            const uint32_t count = tessera::Smaller(tile.k1, k1 - k);
            LoadLeft(image, window, m, mExtension, k, count);
            LoadRight(filter, k, count, n1);
            LocalTensor<half> left = leftQueue.DeQue<half>();
            LocalTensor<half> right = rightQueue.DeQue<half>();
            MmadParams params;
            params.m = mExtension;
            params.n = n1 * tessera::C0;
            params.k = count * tessera::C0;
            params.cmatrixInitVal = false;
            if (k == 0)
                Mmad(sums, left, right, bias, params);
            else
                Mmad(sums, left, right, params);
            // The next one would read sums of so small a tile before they are written.
            if (mExtension / tessera::C0 * n1 < LEAST_UNBARRED)
                PipeBarrier<PIPE_M>();
            leftQueue.FreeTensor(left);
            rightQueue.FreeTensor(right);
        }
        sumQueue.EnQue(sums);
    }

    __aicore__ inline void LoadLeft(const LocalTensor<half> &image, const tessera::Window &window, uint32_t m,
                                    uint32_t mExtension, uint32_t k, uint32_t count) {
        LocalTensor<half> left = leftQueue.AllocTensor<half>();
        LoadData3DParamsV2<half> params;
        params.padList[0] = shape.padLeft;
        params.padList[1] = shape.padRight;
        params.padList[2] = window.padTop;
        params.padList[3] = 255; // also for the rows that only fill up the last 16 pixels
        params.l1H = window.count;
        params.l1W = shape.width;
        params.channelSize = shape.c1 * tessera::C0;
        params.mStartPt = m;
        params.mExtension = mExtension;
        params.kStartPt = k * tessera::C0;
        params.kExtension = count * tessera::C0;
        params.strideW = shape.strideW;
        params.strideH = shape.strideH;
        params.filterW = tessera::KERNEL;
        params.filterH = tessera::KERNEL;
        params.dilationFilterW = 1;
        params.dilationFilterH = 1;
        params.enTranspose = false;
        params.padValue = 0;
        LoadData(left, image, params);
        leftQueue.EnQue(left);
    }

    __aicore__ inline void LoadRight(const LocalTensor<half> &filter, uint32_t k, uint32_t count, uint32_t n1) {
        LocalTensor<half> right = rightQueue.AllocTensor<half>();
        LoadData2DParams params;
        params.startIndex = 0;
        params.repeatTimes = count * n1;
        params.srcStride = 1;
        params.dstGap = 0;
        params.ifTranspose = false;
        LoadData(right, filter[k * n1 * tessera::FRACTAL], params);
        rightQueue.EnQue(right);
    }

    __aicore__ inline void Store(uint64_t offset, uint32_t pixels, uint32_t n1) {
        LocalTensor<float> sums = sumQueue.DeQue<float>();
        FixpipeParamsM300 params;
        params.nSize = n1 * tessera::C0;
        params.mSize = pixels;
        params.srcStride = tessera::CeilDiv(pixels, tessera::C0) * tessera::C0;
        params.dstStride = outHeight * outWidth;
        params.quantPre = QuantMode_t::F322F16;
        params.reluEn = true;
        Fixpipe<half, float, CFG_NZ>(yGm[offset], sums, params);
        sumQueue.FreeTensor(sums);
    }

    const tessera::Shape shape;
    const tessera::Tile tile;
    const uint32_t k1, outHeight, outWidth;
    TPipe pipe;
    TQue<TPosition::A1, 1> imageQueue;
    TQue<TPosition::B1, 1> filterQueue;
    TQue<TPosition::C1, 1> biasQueue;
    TQue<TPosition::C2, 1> biasTableQueue;
    TQue<TPosition::A2, 2> leftQueue;
    TQue<TPosition::B2, 2> rightQueue;
    TQue<TPosition::CO1, 1> sumQueue;
    GlobalTensor<half> xGm, filterGm, yGm;
    GlobalTensor<float> biasGm;
};
} // namespace

extern "C" __global__ __aicore__ void conv_bias_relu(GM_ADDR x, GM_ADDR filter, GM_ADDR bias, GM_ADDR y,
                                                     GM_ADDR workspace, GM_ADDR tiling) {
    GET_TILING_DATA(data, tiling);
    const tessera::Shape shape = {data.batch,   data.c1,        data.height,  data.width,
                                  data.cout1,   data.strideH,   data.strideW, data.padTop,
                                  data.padBottom, data.padLeft, data.padRight};
    const tessera::Tile tile = {data.rows, data.m, data.k1, data.n1};
    ConvBiasRelu operation(shape, tile);
    operation.Init(x, filter, bias, y);
    operation.Process();
}
