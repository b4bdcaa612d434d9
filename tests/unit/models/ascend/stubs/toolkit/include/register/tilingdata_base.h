#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "graph/operator.h"

// As in CANN: one setter per field, fields in the order in which they are written down.
#define BEGIN_TILING_DATA_DEF(name) \
    struct name { \
        void SaveToBuffer(void *, size_t) {} \
        size_t GetDataSize() const { return sizeof(*this); }
#define TILING_DATA_FIELD_DEF(type, field) \
    type field; \
    void set_##field(type value) { field = value; }
#define END_TILING_DATA_DEF }
#define REGISTER_TILING_DATA_CLASS(operation, name) static_assert(sizeof(name) > 0, #operation);

namespace gert {
class Shape {
public:
    size_t GetDimNum() const;
    int64_t GetDim(size_t index) const;
    void SetDimNum(size_t count);
    void SetDim(size_t index, int64_t value);
};
struct StorageShape {
    const Shape &GetStorageShape() const;
};
struct IntList {
    const int64_t *GetData() const;
    size_t GetSize() const;
};
struct RuntimeAttrs {
    const IntList *GetListInt(size_t index) const;
};
struct TilingData {
    void *GetData();
    size_t GetCapacity() const;
    void SetDataSize(size_t size);
};
class TilingContext {
public:
    const StorageShape *GetInputShape(size_t index) const;
    const RuntimeAttrs *GetAttrs() const;
    void *GetPlatformInfo() const;
    TilingData *GetRawTilingData();
    void SetBlockDim(uint32_t count);
    size_t *GetWorkspaceSizes(size_t count);
};
class InferShapeContext {
public:
    const Shape *GetInputShape(size_t index) const;
    Shape *GetOutputShape(size_t index);
    const RuntimeAttrs *GetAttrs() const;
};
} // namespace gert
