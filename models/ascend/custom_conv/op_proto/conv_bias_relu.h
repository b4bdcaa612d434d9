// The operator as GE knows it: y = ReLU(conv2d(x, filter) + bias), NCHW, 3x3, one group, no dilation.
#ifndef TESSERA_CONV_BIAS_RELU_H
#define TESSERA_CONV_BIAS_RELU_H

#include "graph/operator_reg.h"

namespace ge {
// strides: [1, 1, h, w]. pads: top, bottom, left, right. fp32 graphs are computed in fp16 by ATC's precision mode.
REG_OP(ConvBiasRelu)
    .INPUT(x, TensorType({DT_FLOAT16, DT_FLOAT}))
    .INPUT(filter, TensorType({DT_FLOAT16, DT_FLOAT}))
    .INPUT(bias, TensorType({DT_FLOAT16, DT_FLOAT}))
    .OUTPUT(y, TensorType({DT_FLOAT16, DT_FLOAT}))
    .REQUIRED_ATTR(strides, ListInt)
    .REQUIRED_ATTR(pads, ListInt)
    .OP_END_FACTORY_REG(ConvBiasRelu)
} // namespace ge
#endif
