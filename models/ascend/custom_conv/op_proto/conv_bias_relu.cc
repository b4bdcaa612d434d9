#include "conv_bias_relu.h"

#include <cstdint>
#include <vector>

namespace ge {
namespace {
constexpr int64_t UNKNOWN = -1;

int64_t OutputSize(int64_t size, int64_t kernel, int64_t before, int64_t after, int64_t stride) {
    return size == UNKNOWN ? UNKNOWN : (size + before + after - kernel) / stride + 1;
}
} // namespace

IMPLEMT_COMMON_INFERFUNC(ConvBiasReluInferShape) {
    const TensorDesc xDesc = op.GetInputDescByName("x");
    const std::vector<int64_t> x = xDesc.GetShape().GetDims();
    const std::vector<int64_t> filter = op.GetInputDescByName("filter").GetShape().GetDims();
    std::vector<int64_t> strides, pads;
    if (op.GetAttr("strides", strides) != GRAPH_SUCCESS || op.GetAttr("pads", pads) != GRAPH_SUCCESS)
        return GRAPH_FAILED;
    if (x.size() != 4 || filter.size() != 4 || strides.size() != 4 || pads.size() != 4 || x[1] != filter[1] ||
        strides[2] < 1 || strides[3] < 1)
        return GRAPH_FAILED;
    const int64_t height = OutputSize(x[2], filter[2], pads[0], pads[1], strides[2]);
    const int64_t width = OutputSize(x[3], filter[3], pads[2], pads[3], strides[3]);
    if ((height < 1 && height != UNKNOWN) || (width < 1 && width != UNKNOWN))
        return GRAPH_FAILED;
    TensorDesc y = op.GetOutputDescByName("y");
    y.SetShape(Shape({x[0], filter[0], height, width}));
    y.SetDataType(xDesc.GetDataType());
    return op.UpdateOutputDesc("y", y);
}

COMMON_INFER_FUNC_REG(ConvBiasRelu, ConvBiasReluInferShape);
} // namespace ge
