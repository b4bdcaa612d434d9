// Host side of the Ascend C implementation: tiling, shapes, and the operator's description.
#include "geometry.h"

#include "register/op_def_registry.h"
#include "register/tilingdata_base.h"
#include "tiling/platform/platform_ascendc.h"

namespace optiling {
BEGIN_TILING_DATA_DEF(ConvBiasReluTilingData)
TILING_DATA_FIELD_DEF(uint32_t, batch);
TILING_DATA_FIELD_DEF(uint32_t, c1);
TILING_DATA_FIELD_DEF(uint32_t, height);
TILING_DATA_FIELD_DEF(uint32_t, width);
TILING_DATA_FIELD_DEF(uint32_t, cout1);
TILING_DATA_FIELD_DEF(uint32_t, strideH);
TILING_DATA_FIELD_DEF(uint32_t, strideW);
TILING_DATA_FIELD_DEF(uint32_t, padTop);
TILING_DATA_FIELD_DEF(uint32_t, padBottom);
TILING_DATA_FIELD_DEF(uint32_t, padLeft);
TILING_DATA_FIELD_DEF(uint32_t, padRight);
TILING_DATA_FIELD_DEF(uint32_t, rows);
TILING_DATA_FIELD_DEF(uint32_t, m);
TILING_DATA_FIELD_DEF(uint32_t, k1);
TILING_DATA_FIELD_DEF(uint32_t, n1);
END_TILING_DATA_DEF;

REGISTER_TILING_DATA_CLASS(ConvBiasRelu, ConvBiasReluTilingData)

static tessera::Buffers BuffersOf(const platform_ascendc::PlatformAscendC &platform) {
    uint64_t l1 = 0, l0a = 0, l0b = 0, l0c = 0;
    platform.GetCoreMemSize(platform_ascendc::CoreMemType::L1, l1);
    platform.GetCoreMemSize(platform_ascendc::CoreMemType::L0_A, l0a);
    platform.GetCoreMemSize(platform_ascendc::CoreMemType::L0_B, l0b);
    platform.GetCoreMemSize(platform_ascendc::CoreMemType::L0_C, l0c);
    return {static_cast<uint32_t>(l1), static_cast<uint32_t>(l0a), static_cast<uint32_t>(l0b),
            static_cast<uint32_t>(l0c)};
}

static ge::graphStatus Tiling(gert::TilingContext *context) {
    const gert::Shape &x = context->GetInputShape(0)->GetStorageShape();      // NC1HWC0
    const gert::Shape &filter = context->GetInputShape(1)->GetStorageShape(); // FRACTAL_Z
    const auto *strides = context->GetAttrs()->GetListInt(0);
    const auto *pads = context->GetAttrs()->GetListInt(1);
    if (x.GetDimNum() != 5 || filter.GetDimNum() != 4 || strides->GetSize() != 4 || pads->GetSize() != 4)
        return ge::GRAPH_FAILED;
    auto size = [](int64_t value) { return static_cast<uint32_t>(value); };
    const tessera::Shape shape = {size(x.GetDim(0)),           size(x.GetDim(1)),           size(x.GetDim(2)),
                                  size(x.GetDim(3)),           size(filter.GetDim(1)),      size(strides->GetData()[2]),
                                  size(strides->GetData()[3]), size(pads->GetData()[0]),    size(pads->GetData()[1]),
                                  size(pads->GetData()[2]),    size(pads->GetData()[3])};
    const platform_ascendc::PlatformAscendC platform(context->GetPlatformInfo());
    tessera::Tile tile;
    if (!tessera::ChooseTile(shape, BuffersOf(platform), tile))
        return ge::GRAPH_FAILED;
    ConvBiasReluTilingData data;
    data.set_batch(shape.batch);
    data.set_c1(shape.c1);
    data.set_height(shape.height);
    data.set_width(shape.width);
    data.set_cout1(shape.cout1);
    data.set_strideH(shape.strideH);
    data.set_strideW(shape.strideW);
    data.set_padTop(shape.padTop);
    data.set_padBottom(shape.padBottom);
    data.set_padLeft(shape.padLeft);
    data.set_padRight(shape.padRight);
    data.set_rows(tile.rows);
    data.set_m(tile.m);
    data.set_k1(tile.k1);
    data.set_n1(tile.n1);
    data.SaveToBuffer(context->GetRawTilingData()->GetData(), context->GetRawTilingData()->GetCapacity());
    context->GetRawTilingData()->SetDataSize(data.GetDataSize());
    context->SetBlockDim(platform.GetCoreNumAic());
    context->GetWorkspaceSizes(1)[0] = platform.GetLibApiWorkSpaceSize();
    return ge::GRAPH_SUCCESS;
}
} // namespace optiling

namespace ge {
static graphStatus InferShape(gert::InferShapeContext *context) {
    const gert::Shape &x = *context->GetInputShape(0);      // NCHW
    const gert::Shape &filter = *context->GetInputShape(1); // OIHW
    const int64_t *strides = context->GetAttrs()->GetListInt(0)->GetData();
    const int64_t *pads = context->GetAttrs()->GetListInt(1)->GetData();
    gert::Shape &y = *context->GetOutputShape(0);
    y.SetDimNum(4);
    y.SetDim(0, x.GetDim(0));
    y.SetDim(1, filter.GetDim(0));
    y.SetDim(2, (x.GetDim(2) + pads[0] + pads[1] - tessera::KERNEL) / strides[2] + 1);
    y.SetDim(3, (x.GetDim(3) + pads[2] + pads[3] - tessera::KERNEL) / strides[3] + 1);
    return GRAPH_SUCCESS;
}
} // namespace ge

namespace ops {
class ConvBiasRelu : public OpDef {
public:
    explicit ConvBiasRelu(const char *name) : OpDef(name) {
        this->Input("x").ParamType(REQUIRED).DataType({ge::DT_FLOAT16}).Format({ge::FORMAT_NC1HWC0});
        this->Input("filter").ParamType(REQUIRED).DataType({ge::DT_FLOAT16}).Format({ge::FORMAT_FRACTAL_Z});
        this->Input("bias").ParamType(REQUIRED).DataType({ge::DT_FLOAT}).Format({ge::FORMAT_ND});
        this->Output("y").ParamType(REQUIRED).DataType({ge::DT_FLOAT16}).Format({ge::FORMAT_NC1HWC0});
        this->Attr("strides").ListInt();
        this->Attr("pads").ListInt();
        this->SetInferShape(ge::InferShape);
        this->AICore().SetTiling(optiling::Tiling);
        this->AICore().AddConfig("ascend310b");
    }
};

OP_ADD(ConvBiasRelu);
} // namespace ops
