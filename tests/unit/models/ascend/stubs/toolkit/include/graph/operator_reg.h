#pragma once
#include "graph/operator.h"

namespace ge {
struct TensorType {
    TensorType(std::initializer_list<DataType>) {}
};
struct OperatorRegistration {
    OperatorRegistration &Add(const char *, const TensorType &) { return *this; }
    OperatorRegistration &Add(const char *) { return *this; }
    OperatorRegistration &End() { return *this; }
};
using InferFunction = graphStatus (*)(Operator &);
} // namespace ge

// Names are turned into texts, so that a slip in them still compiles; tests compare them with the op info.
#define REG_OP(name) \
    extern const ::ge::OperatorRegistration registration_##name; \
    const ::ge::OperatorRegistration registration_##name = ::ge::OperatorRegistration()
#define INPUT(name, types) Add(#name, types)
#define OUTPUT(name, types) Add(#name, types)
#define REQUIRED_ATTR(name, type) Add(#name)
#define OP_END_FACTORY_REG(name) End();
#define IMPLEMT_COMMON_INFERFUNC(function) static graphStatus function(Operator &op)
#define COMMON_INFER_FUNC_REG(name, function) extern "C" graphStatus Infer##name(Operator &op) { return function(op); }
