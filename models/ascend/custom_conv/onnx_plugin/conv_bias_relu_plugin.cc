// ONNX node tessera::ConvBiasRelu to GE operator ConvBiasRelu.
#include "json_ints.h"

#include "graph/operator.h"
#include "register/register.h"

namespace domi {
namespace {
// GE takes tensors of unknown operators as ND, which has no blocked layout.
bool SetInputNchw(ge::Operator &op, const char *name) {
    ge::TensorDesc desc = op.GetInputDescByName(name);
    desc.SetOriginFormat(ge::FORMAT_NCHW);
    desc.SetFormat(ge::FORMAT_NCHW);
    return op.UpdateInputDesc(name, desc) == ge::GRAPH_SUCCESS;
}

bool SetOutputNchw(ge::Operator &op, const char *name) {
    ge::TensorDesc desc = op.GetOutputDescByName(name);
    desc.SetOriginFormat(ge::FORMAT_NCHW);
    desc.SetFormat(ge::FORMAT_NCHW);
    return op.UpdateOutputDesc(name, desc) == ge::GRAPH_SUCCESS;
}

Status ParseConvBiasRelu(const ge::Operator &source, ge::Operator &target) {
    ge::AscendString text;
    std::vector<int64_t> strides, pads;
    if (source.GetAttr("attribute", text) != ge::GRAPH_SUCCESS ||
        !tessera::ReadInts(text.GetString(), "strides", strides) || strides.size() != 2 ||
        !tessera::ReadInts(text.GetString(), "pads", pads) || pads.size() != 4)
        return FAILED;
    target.SetAttr("strides", std::vector<int64_t>{1, 1, strides[0], strides[1]});
    // ONNX has top, left, bottom, right; CANN top, bottom, left, right.
    target.SetAttr("pads", std::vector<int64_t>{pads[0], pads[2], pads[1], pads[3]});
    return SetInputNchw(target, "x") && SetInputNchw(target, "filter") && SetOutputNchw(target, "y") ? SUCCESS : FAILED;
}
} // namespace

REGISTER_CUSTOM_OP("ConvBiasRelu")
    .FrameworkType(ONNX)
    .OriginOpType({ge::AscendString("tessera::1::ConvBiasRelu")})
    .ParseParamsByOperatorFn(ParseConvBiasRelu)
    .ImplyType(ImplyType::TVM);
} // namespace domi
