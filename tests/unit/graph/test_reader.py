"""A file that is not a sound model is refused with a sentence, whatever is wrong with it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tessera.engine.errors import ModelError
from tessera.engine.graph import reader, tensors
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import convert_model, parse_model, read_model
from tessera.engine.graph.reference import run_reference
from tests.unit.graph.onnx_models import agree, build, node, normal


def small_model() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w", "b"], "a", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], "r"),
        node("GlobalAveragePool", ["r"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "m"], "y"),
    ]
    constants = {"w": normal(4, 3, 3, 3), "b": normal(4), "m": normal(4, 5)}
    return build(nodes, ["N", 3, 8, 8], constants, rank=2)


def integer_model() -> onnx.ModelProto:
    """The operators of ONNX Runtime's QOperator format."""
    constants = {"s": np.float32(0.05), "z": np.uint8(90), "ws": np.float32(0.01), "wz": np.int8(0)}
    constants |= {"w": np.arange(-54, 54, dtype=np.int8).reshape(4, 3, 3, 3), "b": np.arange(4, dtype=np.int32)}
    constants |= {"m": np.arange(-10, 10, dtype=np.int8).reshape(4, 5), "mb": np.arange(5, dtype=np.int32)}
    own = {"domain": "com.microsoft"}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "s", "z", "b"], "c", pads=[1, 1, 1, 1]),
        node("MaxPool", ["c"], "p", kernel_shape=[2, 2]),
        node("QLinearAdd", ["p", "s", "z", "p", "s", "z", "s", "z"], "a", **own),
        node("QLinearGlobalAveragePool", ["a", "s", "z", "s", "z"], "g", channels_last=0, **own),
        node("Flatten", ["g"], "f"),
        node("QGemm", ["f", "s", "z", "m", "ws", "wz", "mb", "s", "z"], "h", **own),
        node("DequantizeLinear", ["h", "s", "z"], "y"),
    ]
    model = build(nodes, ["N", 3, 8, 8], constants, rank=2)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def test_integer_operators_are_what_onnxruntime_computes() -> None:
    graph = agree(integer_model(), {"x": normal(2, 3, 8, 8)}, quantum=0.05)
    assert [n.op for n in graph.nodes if "Quantize" in n.op] == []


def read_bytes(data: bytes) -> None:
    convert_model(parse_model(data))


@pytest.mark.parametrize("whole", [small_model, integer_model])
@given(data=st.data())
@settings(max_examples=300)
def test_no_damaged_file_does_anything_but_raise_a_model_error_or_load(
    whole: Callable[[], onnx.ModelProto], data: st.DataObject
) -> None:
    original = whole().SerializeToString()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = lower(convert_model(parse_model(bytes(damaged))))
    except ModelError:
        return
    if graph.inputs == ["x"] and graph.values["x"].shape == (None, 3, 8, 8) and graph.values["x"].dtype == np.float32:
        run_reference(graph, {"x": normal(1, 3, 8, 8)})


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_noise_is_not_a_model(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_bytes(data)


def test_no_truncated_file_is_a_model() -> None:
    data = small_model().SerializeToString()
    for length in range(0, len(data) - 8, 7):
        with pytest.raises(ModelError):
            read_bytes(data[:length])


def test_missing_folder_and_compressed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing\.onnx cannot be read"):
        read_model(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(tmp_path)
    packed = tmp_path / "model.onnx"
    packed.write_bytes(gzip.compress(small_model().SerializeToString()))
    with pytest.raises(ModelError, match=r"model\.onnx: .*gzip"):
        read_model(packed)


def test_oversized_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(reader.LARGEST_FILE + 1)
    with pytest.raises(ModelError, match="cannot exceed"):
        read_model(huge)


@pytest.mark.parametrize("opset", [8, 23])
def test_unsupported_opsets_are_named(opset: int) -> None:
    model = small_model()
    model.opset_import[0].version = opset
    with pytest.raises(ModelError, match=f"opset {opset}; 9 to 22"):
        convert_model(model)


def test_file_without_an_opset_is_refused() -> None:
    model = small_model()
    del model.opset_import[:]
    with pytest.raises(ModelError, match="opset"):
        convert_model(model)


def test_initialisers_may_also_be_listed_as_inputs() -> None:
    model = small_model()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph = agree(model, {"x": normal(2, 3, 8, 8)})
    assert graph.inputs == ["x"]


def test_metadata_is_kept() -> None:
    model = small_model()
    helper.set_model_props(model, {"tessera.mean": "[0.1, 0.2, 0.3]"})
    assert lower(convert_model(model)).metadata == {"tessera.mean": "[0.1, 0.2, 0.3]"}


def test_metadata_that_is_no_text_is_refused() -> None:
    model = build([node("Relu", ["x"], "y")], ["N", 3], rank=2)
    model.metadata_props.add(key="tessera.xxxx", value="1")
    damaged = model.SerializeToString().replace(b"tessera.xxxx", b"tessera.\xff\xff\xff\xff")
    with pytest.raises(ModelError, match="not UTF-8"):
        convert_model(parse_model(damaged))


def test_many_weights_in_the_same_external_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build([node("Relu", ["x"], "y")], ["N", 3], {f"w{i}": np.ones(1000, np.float32) for i in range(9)}, rank=2)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    read_model(tmp_path / "m.onnx")
    monkeypatch.setattr(tensors, "LARGEST_EXTERNAL", 8 * 4000)
    with pytest.raises(ModelError, match="in all"):
        read_model(tmp_path / "m.onnx")


def test_values_stored_in_typed_fields_are_read() -> None:
    model = build([node("Add", ["x", "c"], "y")], ["N", 3], {}, rank=2)
    model.graph.initializer.append(helper.make_tensor("c", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    agree(model, {"x": normal(2, 3)})


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[3], raw_data=bytes(8)), "12 bytes"),
        (TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[2**40, 2**20], raw_data=bytes(8)), "bytes"),
        (TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[-3], raw_data=bytes(12)), "contradicts|negative"),
        (TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[3], float_data=[1.0]), "contradicts|elements"),
        (TensorProto(name="c", data_type=TensorProto.FLOAT16, dims=[3], raw_data=bytes(6)), "float16"),
        (helper.make_tensor("c", TensorProto.FLOAT, [3], [1.0, float("nan"), 1.0]), "not numbers"),
    ],
)
def test_unsound_weights_are_named(tensor: TensorProto, complaint: str) -> None:
    model = build([node("Add", ["x", "c"], "y")], ["N", 3], rank=2)
    model.graph.initializer.append(tensor)
    with pytest.raises(ModelError, match=complaint):
        convert_model(model)


def save_with_external_data(folder: Path) -> onnx.ModelProto:
    path = folder / "model.onnx"
    onnx.save(small_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return onnx.load(path, load_external_data=False)


def test_external_data_is_read_from_the_models_folder(tmp_path: Path) -> None:
    save_with_external_data(tmp_path)
    x = normal(2, 3, 8, 8)
    loaded = run_reference(read_model(tmp_path / "model.onnx"), {"x": x})["y"]
    np.testing.assert_array_equal(loaded, run_reference(convert_model(small_model()), {"x": x})["y"])


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "missing.bin", "link.bin", "", "a\0b"])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    model = save_with_external_data(folder)
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="Tensor 'w'"):
        read_model(folder / "model.onnx")


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("offset", "9999999"), ("length", "3"), ("offset", "x")])
def test_external_data_outside_its_file_is_refused(tmp_path: Path, key: str, value: str) -> None:
    model = save_with_external_data(tmp_path)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == key).value = value
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="Tensor 'w'"):
        read_model(tmp_path / "model.onnx")


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damaged_file_with_external_data_does_anything_but_raise_a_model_error_or_load(
    data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    if not path.exists():
        save_with_external_data(tmp_path)
        (tmp_path / "whole.onnx").write_bytes(path.read_bytes())
        (tmp_path / "whole.bin").write_bytes((tmp_path / "weights.bin").read_bytes())
    damaged = bytearray((tmp_path / "whole.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    weights = (tmp_path / "whole.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(weights[: data.draw(st.sampled_from([0, len(weights) // 2, len(weights)]))])
    path.write_bytes(damaged)
    with suppress(ModelError):
        lower(read_model(path))


def test_reading_a_value_that_nothing_writes_is_refused() -> None:
    with pytest.raises(ModelError, match="nowhere"):
        convert_model(build([node("Add", ["x", "nowhere"], "y")], ["N", 3], rank=2))


def test_writing_a_value_twice_is_refused() -> None:
    with pytest.raises(ModelError):
        convert_model(build([node("Relu", ["x"], "y"), node("Relu", ["x"], "y")], ["N", 3], rank=2))


@pytest.mark.parametrize("taken", ["c", "x"])
@pytest.mark.parametrize("writer", ["Relu", "Constant", "Identity"])
def test_writing_over_a_weight_or_an_input_is_refused(taken: str, writer: str) -> None:
    inputs = {"Relu": ["x"], "Constant": [], "Identity": ["d"]}[writer]
    extra = {"value_float": 1.0} if writer == "Constant" else {}
    nodes = [node(writer, inputs, taken, **extra), node("Add", ["x", "c"], "y"), node("Add", ["y", "d"], "z")]
    with pytest.raises(ModelError):
        convert_model(build(nodes, ["N", 3], {"c": normal(3), "d": normal(3)}, outputs=("z",), rank=2))


def test_output_that_is_never_written_is_refused() -> None:
    with pytest.raises(ModelError, match="z"):
        convert_model(build([node("Relu", ["x"], "y")], ["N", 3], outputs=("z",), rank=2))


def test_input_of_an_unsupported_type_is_refused() -> None:
    model = build([node("Relu", ["x"], "y")], ["N", 3], input_type=TensorProto.FLOAT16, rank=2)
    with pytest.raises(ModelError, match="float16"):
        convert_model(model)


def test_too_many_nodes_are_refused() -> None:
    count = reader.MOST_NODES + 1
    model = build([node("Relu", [f"v{index}" if index else "x"], f"v{index + 1}") for index in range(count)], ["N", 3])
    with pytest.raises(ModelError, match=f"{count} nodes"):
        convert_model(model)


def test_layer_too_large_for_memory_is_refused() -> None:
    model = build([node("Conv", ["x", "w"], "y", pads=[2**20] * 4)], ["N", 1, 8, 8], {"w": normal(1, 1, 3, 3)})
    with pytest.raises(ModelError, match="elements per image"):
        convert_model(model)
