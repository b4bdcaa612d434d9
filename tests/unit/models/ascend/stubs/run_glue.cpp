// Shape inference and the ONNX plugin of the operator package, for ctypes.
#include "conv_bias_relu.cc"
#include "conv_bias_relu_plugin.cc"

// 1 and y's shape in `result`, or 0.
extern "C" int infer(const int64_t *x, const int64_t *filter, const int64_t *strides, const int64_t *pads,
                     int64_t *result) {
    ge::Operator op;
    auto list = [](const int64_t *values) { return std::vector<int64_t>(values, values + 4); };
    op.inputs["x"].SetShape(ge::Shape(list(x)));
    op.inputs["x"].SetDataType(ge::DT_FLOAT16);
    op.inputs["filter"].SetShape(ge::Shape(list(filter)));
    op.SetAttr("strides", list(strides)).SetAttr("pads", list(pads));
    if (InferConvBiasRelu(op) != ge::GRAPH_SUCCESS || op.outputs["y"].GetDataType() != ge::DT_FLOAT16)
        return 0;
    const std::vector<int64_t> y = op.outputs["y"].GetShape().GetDims();
    for (size_t axis = 0; axis < y.size(); axis++)
        result[axis] = y[axis];
    return y.size() == 4;
}

// 1 and strides and pads, 4 numbers each, in `result`, or 0.
extern "C" int parse(const char *attributes, int64_t *result) {
    ge::Operator source, target;
    source.texts["attribute"] = attributes;
    if (domi::registered.parse(source, target) != domi::SUCCESS)
        return 0;
    for (const char *name : {"strides", "pads"})
        for (int64_t value : target.lists.at(name))
            *result++ = value;
    return target.inputs["x"].originFormat == ge::FORMAT_NCHW && target.inputs["filter"].format == ge::FORMAT_NCHW &&
           target.outputs["y"].format == ge::FORMAT_NCHW && target.inputs["bias"].format == ge::FORMAT_ND;
}

extern "C" const char *origin() { return domi::registered.origin.c_str(); }
extern "C" const char *type() { return domi::registered.type.c_str(); }
