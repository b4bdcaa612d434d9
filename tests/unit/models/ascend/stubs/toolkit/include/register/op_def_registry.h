#pragma once
#include <initializer_list>

#include "register/tilingdata_base.h"

namespace ops {
enum Option { REQUIRED };
struct OpParamDef {
    OpParamDef &ParamType(Option);
    OpParamDef &DataType(std::initializer_list<ge::DataType>);
    OpParamDef &Format(std::initializer_list<ge::Format>);
};
struct OpAttrDef {
    OpAttrDef &ListInt();
};
struct OpAICoreDef {
    OpAICoreDef &SetTiling(ge::graphStatus (*)(gert::TilingContext *));
    OpAICoreDef &AddConfig(const char *soc);
};
class OpDef {
public:
    explicit OpDef(const char *name);
    OpParamDef &Input(const char *name);
    OpParamDef &Output(const char *name);
    OpAttrDef &Attr(const char *name);
    OpDef &SetInferShape(ge::graphStatus (*)(gert::InferShapeContext *));
    OpAICoreDef &AICore();
};
} // namespace ops
#define OP_ADD(name) static_assert(sizeof(name) > 0, #name)
