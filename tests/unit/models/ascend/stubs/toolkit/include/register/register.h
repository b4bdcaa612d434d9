#pragma once
#include <functional>

#include "graph/operator.h"

namespace domi {
using Status = uint32_t;
constexpr Status SUCCESS = 0, FAILED = 0xFFFFFFFF;
enum FrameworkTypes { ONNX = 5 };
enum class ImplyType { TVM = 1 };

struct OpRegistrationData {
    explicit OpRegistrationData(const char *type) : type(type) {}
    OpRegistrationData &FrameworkType(FrameworkTypes) { return *this; }
    OpRegistrationData &OriginOpType(const std::vector<ge::AscendString> &types) {
        origin = types.front().GetString();
        return *this;
    }
    OpRegistrationData &ParseParamsByOperatorFn(Status (*function)(const ge::Operator &, ge::Operator &)) {
        parse = function;
        return *this;
    }
    OpRegistrationData &ImplyType(domi::ImplyType) { return *this; }
    std::string type, origin;
    Status (*parse)(const ge::Operator &, ge::Operator &) = nullptr;
};
} // namespace domi

#define REGISTER_CUSTOM_OP(type) extern const ::domi::OpRegistrationData registered; \
    const ::domi::OpRegistrationData registered = ::domi::OpRegistrationData(type)
