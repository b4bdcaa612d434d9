// The part of GE's graph interface that the operator package uses, with values that tests can look at.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ge {
using graphStatus = uint32_t;
constexpr graphStatus GRAPH_SUCCESS = 0, GRAPH_FAILED = 0xFFFFFFFF;
enum DataType { DT_FLOAT = 0, DT_FLOAT16 = 1 };
enum Format { FORMAT_NCHW = 0, FORMAT_ND = 2, FORMAT_NC1HWC0 = 3, FORMAT_FRACTAL_Z = 4 };

class AscendString {
public:
    AscendString() = default;
    explicit AscendString(const char *text) : text(text) {}
    const char *GetString() const { return text.c_str(); }

private:
    std::string text;
};

class Shape {
public:
    Shape() = default;
    explicit Shape(const std::vector<int64_t> &dims) : dims(dims) {}
    std::vector<int64_t> GetDims() const { return dims; }

private:
    std::vector<int64_t> dims;
};

class TensorDesc {
public:
    Shape GetShape() const { return shape; }
    void SetShape(const Shape &value) { shape = value; }
    DataType GetDataType() const { return type; }
    void SetDataType(DataType value) { type = value; }
    void SetFormat(Format value) { format = value; }
    void SetOriginFormat(Format value) { originFormat = value; }
    Shape shape;
    DataType type = DT_FLOAT;
    Format format = FORMAT_ND, originFormat = FORMAT_ND;
};

class Operator {
public:
    graphStatus GetAttr(const char *name, std::vector<int64_t> &values) const {
        const auto found = lists.find(name);
        if (found == lists.end())
            return GRAPH_FAILED;
        values = found->second;
        return GRAPH_SUCCESS;
    }
    graphStatus GetAttr(const char *name, AscendString &value) const {
        const auto found = texts.find(name);
        if (found == texts.end())
            return GRAPH_FAILED;
        value = AscendString(found->second.c_str());
        return GRAPH_SUCCESS;
    }
    Operator &SetAttr(const char *name, const std::vector<int64_t> &values) {
        lists[name] = values;
        return *this;
    }
    TensorDesc GetInputDescByName(const char *name) const { return inputs.at(name); }
    TensorDesc GetOutputDescByName(const char *name) const { return outputs.at(name); }
    graphStatus UpdateInputDesc(const char *name, const TensorDesc &desc) {
        inputs.at(name) = desc;
        return GRAPH_SUCCESS;
    }
    graphStatus UpdateOutputDesc(const char *name, const TensorDesc &desc) {
        outputs.at(name) = desc;
        return GRAPH_SUCCESS;
    }
    std::map<std::string, std::vector<int64_t>> lists;
    std::map<std::string, std::string> texts;
    std::map<std::string, TensorDesc> inputs{{"x", {}}, {"filter", {}}, {"bias", {}}}, outputs{{"y", {}}};
};
} // namespace ge
