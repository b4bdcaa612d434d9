// The part of Ascend C that the operator uses, computed on the CPU: what each instruction does to which bytes, by CANN's
// documentation. Sizes, order and lifetimes are checked; a violation ends the process with its line.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#define __aicore__
#define __global__
#define __gm__
typedef uint8_t *GM_ADDR;
#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

struct half {
    uint16_t bits;
    half() = default;
    half(int value) { *this = half(static_cast<float>(value)); }
    explicit half(float value) { // to nearest even
        uint32_t raw;
        memcpy(&raw, &value, 4);
        const uint32_t sign = raw >> 16 & 0x8000;
        const float size = std::fabs(value);
        if (std::isnan(value))
            bits = sign | 0x7e00;
        else if (size >= 65520.0f)
            bits = sign | 0x7c00;
        else if (size < 6.103515625e-05f)
            bits = sign | static_cast<uint32_t>(std::nearbyint(size * 16777216.0f));
        else {
            raw &= 0x7fffffff;
            bits = sign | ((raw + 0xfff + (raw >> 13 & 1) - 0x38000000) >> 13);
        }
    }
    operator float() const {
        const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
        const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                           : exponent     ? std::ldexp(1024.0f + fraction, static_cast<int>(exponent) - 25)
                                          : std::ldexp(static_cast<float>(fraction), -24);
        return bits & 0x8000 ? -size : size;
    }
};

namespace AscendC {
enum class TPosition { A1, B1, C1, C2, A2, B2, CO1 };
enum class QuantMode_t { NoQuant, F322F16 };
enum class CO2Layout { NZ, ROW_MAJOR };
struct FixpipeConfig {
    CO2Layout format;
};
constexpr FixpipeConfig CFG_NZ = {CO2Layout::NZ}, CFG_ROW_MAJOR = {CO2Layout::ROW_MAJOR};

struct Core {
    uint32_t index, count, l1, l0a, l0b, l0c, biasTable;
    uint32_t used[7];
    std::vector<std::pair<uint8_t *, size_t>> memory;
};
inline Core core;

enum pipe_t { PIPE_M };
// The results of the last Mmad while they are on their way to L0C. An Mmad that follows it too closely reads what was
// there before: CANN's matmul waits behind every Mmad of fewer than ten fractals (mmad_compute.h, LIMIT_MNSIZE).
struct Flight {
    float *sums;
    std::vector<float> results;
};
inline Flight flight = {nullptr, {}};
constexpr uint32_t FRACTALS_IN_FLIGHT = 10;
inline void Land() {
    if (flight.sums)
        memcpy(flight.sums, flight.results.data(), flight.results.size() * sizeof(float));
    flight.sums = nullptr;
}
inline bool barriers_wait = true; // false to see what goes wrong without them
template <pipe_t pipe> void PipeBarrier() {
    if (barriers_wait)
        Land();
}

inline uint32_t GetBlockIdx() { return core.index; }
inline uint32_t GetBlockNum() { return core.count; }

template <typename T> struct GlobalTensor {
    T *data = nullptr, *end = nullptr;
    void SetGlobalBuffer(T *start) {
        for (const auto &region : core.memory)
            if (region.first == reinterpret_cast<uint8_t *>(start)) {
                data = start;
                end = reinterpret_cast<T *>(region.first + region.second);
            }
        REQUIRE(data);
    }
    GlobalTensor operator[](uint64_t offset) const {
        REQUIRE(offset < static_cast<uint64_t>(end - data));
        GlobalTensor part;
        part.data = data + offset;
        part.end = end;
        return part;
    }
    T *at(uint64_t index, uint64_t count = 1) const {
        REQUIRE(index + count <= static_cast<uint64_t>(end - data));
        return data + index;
    }
};

template <typename T> struct LocalTensor {
    T *data = nullptr, *end = nullptr;
    TPosition position;
    LocalTensor operator[](uint32_t offset) const {
        REQUIRE(offset < end - data);
        LocalTensor part = *this;
        part.data += offset;
        return part;
    }
    T *at(uint64_t index, uint64_t count = 1) const {
        REQUIRE(index + count <= static_cast<uint64_t>(end - data));
        return data + index;
    }
};

class TPipe {
public:
    template <typename Queue> void InitBuffer(Queue &queue, uint32_t count, uint32_t bytes) {
        REQUIRE(bytes % 32 == 0 && bytes > 0);
        core.used[static_cast<int>(Queue::position)] += count * bytes;
        auto used = [](TPosition position) { return core.used[static_cast<int>(position)]; };
        REQUIRE(used(TPosition::A1) + used(TPosition::B1) + used(TPosition::C1) <= core.l1);
        REQUIRE(used(TPosition::A2) <= core.l0a && used(TPosition::B2) <= core.l0b);
        REQUIRE(used(TPosition::CO1) <= core.l0c && used(TPosition::C2) <= core.biasTable);
        queue.free.assign(count, {});
        for (auto &buffer : queue.free)
            buffer.resize(bytes);
    }
};

template <TPosition where, int depth> class TQue {
public:
    static constexpr TPosition position = where;
    std::vector<std::vector<uint8_t>> free;

    template <typename T> LocalTensor<T> AllocTensor() {
        REQUIRE(!free.empty());
        taken.push_back(std::move(free.back()));
        free.pop_back();
        memset(taken.back().data(), 0xff, taken.back().size()); // not a number, in fp16 and fp32
        LocalTensor<T> tensor;
        tensor.data = reinterpret_cast<T *>(taken.back().data());
        tensor.end = tensor.data + taken.back().size() / sizeof(T);
        tensor.position = where;
        return tensor;
    }
    template <typename T> void EnQue(const LocalTensor<T> &tensor) {
        REQUIRE(tensor.position == where && queue.size() < depth);
        if (where == TPosition::CO1)
            Land(); // Fixpipe waits for an event of pipe M
        queue.push_back({reinterpret_cast<uint8_t *>(tensor.data), reinterpret_cast<uint8_t *>(tensor.end)});
    }
    template <typename T> LocalTensor<T> DeQue() {
        REQUIRE(!queue.empty());
        LocalTensor<T> tensor;
        tensor.data = reinterpret_cast<T *>(queue.front().first);
        tensor.end = reinterpret_cast<T *>(queue.front().second);
        tensor.position = where;
        queue.pop_front();
        return tensor;
    }
    template <typename T> void FreeTensor(const LocalTensor<T> &tensor) {
        for (auto it = taken.begin(); it != taken.end(); ++it)
            if (it->data() == reinterpret_cast<uint8_t *>(tensor.data)) {
                free.push_back(std::move(*it));
                taken.erase(it);
                return;
            }
        REQUIRE(!"freed twice, or not at its beginning");
    }
    ~TQue() { REQUIRE(taken.empty() && queue.empty()); }

private:
    std::vector<std::vector<uint8_t>> taken;
    std::deque<std::pair<uint8_t *, uint8_t *>> queue;
};

// The hardware's fields have these widths, so a value that does not fit is cut here as well.
struct DataCopyParams {
    uint16_t blockCount = 0, blockLen = 0, srcStride = 0, dstStride = 0;
};

template <typename T>
void DataCopy(const LocalTensor<T> &target, const GlobalTensor<T> &source, const DataCopyParams &copy) {
    const uint32_t unit = 32 / sizeof(T);
    REQUIRE(copy.blockCount >= 1 && copy.blockCount <= 4095 && copy.blockLen >= 1);
    for (uint32_t block = 0; block < copy.blockCount; block++) {
        const uint64_t count = copy.blockLen * unit;
        memcpy(target.at(static_cast<uint64_t>(block) * (copy.blockLen + copy.dstStride) * unit, count),
               source.at(static_cast<uint64_t>(block) * (copy.blockLen + copy.srcStride) * unit, count),
               count * sizeof(T));
    }
}
template <typename T> void DataCopy(const LocalTensor<T> &target, const GlobalTensor<T> &source, uint32_t count) {
    REQUIRE(count * sizeof(T) % 32 == 0);
    memcpy(target.at(0, count), source.at(0, count), count * sizeof(T));
}
inline void DataCopy(const LocalTensor<float> &target, const LocalTensor<float> &source, const DataCopyParams &copy) {
    REQUIRE(target.position == TPosition::C2 && source.position == TPosition::C1 && copy.blockCount == 1);
    memcpy(target.at(0, copy.blockLen * 16), source.at(0, copy.blockLen * 16), copy.blockLen * 64);
}

template <typename T> struct LoadData3DParamsV2 {
    uint8_t padList[4] = {};
    uint16_t l1H = 0, l1W = 0, channelSize = 0, kExtension = 0, mExtension = 0, kStartPt = 0, mStartPt = 0;
    uint8_t strideW = 1, strideH = 1, filterW = 1, filterH = 1, dilationFilterW = 1, dilationFilterH = 1;
    bool enTranspose = false, enSmallK = false;
    T padValue = 0;
};
struct LoadData2DParams {
    uint16_t startIndex = 0, dstGap = 0, srcStride = 0;
    bool ifTranspose = false;
    uint8_t repeatTimes = 0;
};

// im2col: rows are pixels of the result, columns are C1, kernel rows, kernel columns, 16 channels.
inline void LoadData(const LocalTensor<half> &target, const LocalTensor<half> &image, const LoadData3DParamsV2<half> &p) {
    REQUIRE(target.position == TPosition::A2 && image.position == TPosition::A1 && !p.enTranspose);
    REQUIRE(p.channelSize % 16 == 0 && p.kExtension % 16 == 0 && p.mExtension % 16 == 0);
    REQUIRE(p.kStartPt % 16 == 0 && p.mStartPt % 16 == 0);
    const int width = (p.l1W + p.padList[0] + p.padList[1] - p.filterW) / p.strideW + 1;
    for (int m = 0; m < p.mExtension; m++)
        for (int k = 0; k < p.kExtension; k++) {
            const int step = (p.kStartPt + k) / 16, c1 = step / (p.filterW * p.filterH);
            REQUIRE(c1 < p.channelSize / 16);
            const int y = (p.mStartPt + m) / width * p.strideH - p.padList[2] + step / p.filterW % p.filterH;
            const int x = (p.mStartPt + m) % width * p.strideW - p.padList[0] + step % p.filterW;
            const bool inside = y >= 0 && y < p.l1H && x >= 0 && x < p.l1W;
            REQUIRE(y < p.l1H + p.padList[3]);
            const uint64_t pixel = (static_cast<uint64_t>(c1) * p.l1H + y) * p.l1W + x;
            *target.at((m / 16 * (p.kExtension / 16) + k / 16) * 256 + m % 16 * 16 + k % 16) =
                inside ? *image.at(pixel * 16 + k % 16) : p.padValue;
        }
}
inline void LoadData(const LocalTensor<half> &target, const LocalTensor<half> &filter, const LoadData2DParams &p) {
    REQUIRE(target.position == TPosition::B2 && filter.position == TPosition::B1 && !p.ifTranspose);
    REQUIRE(p.repeatTimes >= 1 && p.srcStride == 1 && p.dstGap == 0);
    const uint64_t count = p.repeatTimes * 256;
    memcpy(target.at(0, count), filter.at(p.startIndex * 256, count), count * sizeof(half));
}

struct MmadParams {
    uint16_t m = 0, n = 0, k = 0;
    bool cmatrixInitVal = true;
};

inline void Multiply(const LocalTensor<float> &sums, const LocalTensor<half> &left, const LocalTensor<half> &right,
                     const float *bias, const MmadParams &p) {
    REQUIRE(sums.position == TPosition::CO1 && left.position == TPosition::A2 && right.position == TPosition::B2);
    REQUIRE(p.m % 16 == 0 && p.n % 16 == 0 && p.k % 16 == 0 && p.m > 0);
    std::vector<float> rows(p.m * p.k), columns(p.n * p.k);
    for (uint32_t k = 0; k < p.k; k++) {
        for (uint32_t m = 0; m < p.m; m++)
            rows[m * p.k + k] = *left.at((m / 16 * (p.k / 16) + k / 16) * 256 + m % 16 * 16 + k % 16);
        for (uint32_t n = 0; n < p.n; n++)
            columns[k * p.n + n] = *right.at((k / 16 * (p.n / 16) + n / 16) * 256 + n % 16 * 16 + k % 16);
    }
    std::vector<float> totals(p.n), results(p.m * p.n);
    for (uint32_t m = 0; m < p.m; m++) {
        for (uint32_t n = 0; n < p.n; n++)
            totals[n] = bias ? bias[n] : p.cmatrixInitVal ? 0.0f : *sums.at((n / 16 * p.m + m) * 16 + n % 16);
        for (uint32_t k = 0; k < p.k; k++)
            for (uint32_t n = 0; n < p.n; n++)
                totals[n] += rows[m * p.k + k] * columns[k * p.n + n];
        for (uint32_t n = 0; n < p.n; n++)
            results[(n / 16 * p.m + m) * 16 + n % 16] = totals[n];
    }
    Land();
    flight = {sums.at(0, results.size()), std::move(results)};
    if (p.m / 16 * (p.n / 16) >= FRACTALS_IN_FLIGHT)
        Land();
}
inline void Mmad(const LocalTensor<float> &sums, const LocalTensor<half> &left, const LocalTensor<half> &right,
                 const MmadParams &p) {
    Multiply(sums, left, right, nullptr, p);
}
inline void Mmad(const LocalTensor<float> &sums, const LocalTensor<half> &left, const LocalTensor<half> &right,
                 const LocalTensor<float> &bias, const MmadParams &p) {
    REQUIRE(bias.position == TPosition::C2 && !p.cmatrixInitVal);
    Multiply(sums, left, right, bias.at(0, p.n), p);
}

struct FixpipeParamsM300 {
    uint16_t nSize = 0, mSize = 0, srcStride = 0;
    uint32_t dstStride = 0;
    QuantMode_t quantPre = QuantMode_t::NoQuant;
    bool reluEn = false;
};
template <typename T, typename S, const FixpipeConfig &config>
void Fixpipe(const GlobalTensor<T> &target, const LocalTensor<S> &sums, const FixpipeParamsM300 &p) {
    static_assert(config.format == CO2Layout::NZ, "only what the operator uses");
    REQUIRE(p.quantPre == QuantMode_t::F322F16 && p.nSize % 16 == 0 && p.nSize > 0 && p.mSize > 0 && p.dstStride > 0);
    for (uint32_t n = 0; n < p.nSize; n++)
        for (uint32_t m = 0; m < p.mSize; m++) {
            const float value = *sums.at((n / 16 * p.srcStride + m) * 16 + n % 16);
            *target.at((static_cast<uint64_t>(n / 16) * p.dstStride + m) * 16 + n % 16) =
                half(p.reluEn && value < 0 ? 0.0f : value);
        }
}
} // namespace AscendC

struct TilingData {
    uint32_t batch, c1, height, width, cout1, strideH, strideW, padTop, padBottom, padLeft, padRight, rows, m, k1, n1;
};
#define GET_TILING_DATA(data, tiling) const TilingData &data = *reinterpret_cast<const TilingData *>(tiling)
