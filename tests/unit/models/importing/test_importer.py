"""Imported models: the same network, whole or not at all, and clear words for what is no image classifier."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save, save_file

from tessera.engine.errors import ModelError
from tessera.engine.quantize.pipeline import calibrate
from tessera.engine.quantize.writer import quantised_model
from tessera.models.formats.weights import read_weights
from tessera.models.importing.importer import ImportOptions, add_model
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.registry import list_models, open_model
from tests.unit.models import torchfiles
from tests.unit.models.tiny import LABELS, SIZE, State, tiny_images, tiny_model, tiny_state
from tests.unit.quantize.networks import run

TINY = ImportOptions(size=SIZE, resize=SIZE)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def opened(folder: Path, cache: Path) -> onnx.ModelProto:
    return onnx.load(open_model(folder, cache=cache).variants["baseline"].path)


def plain_onnx() -> onnx.ModelProto:
    """The tiny network as another exporter would have written it: without our metadata."""
    model = tiny_model()
    del model.metadata_props[:]
    return model


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_state_dicts_become_the_same_network(tmp_path: Path, suffix: str, prefix: str) -> None:
    state = prefixed({**tiny_state(), "bn1.num_batches_tracked": np.array(7)}, prefix)
    path = tmp_path / f"my net{suffix}"
    path.write_bytes(save(state) if suffix == ".safetensors" else torchfiles.checkpoint(state))
    package = add_model(path, tmp_path / "library", TINY)
    assert (package.name, package.folder) == ("my-net", tmp_path / "library" / "my-net")
    assert package.labels == tuple(f"class {index}" for index in range(5))
    images = tiny_images(2)
    assert np.array_equal(run(opened(package.folder, tmp_path / "cache"), images), run(tiny_model(), images))


def test_a_graph_is_kept_byte_for_byte(tmp_path: Path) -> None:
    payload = plain_onnx().SerializeToString()
    (tmp_path / "net.onnx").write_bytes(payload)
    (tmp_path / "names").write_text("\n".join(LABELS), encoding="utf-8")
    options = ImportOptions(
        name="other", labels=tmp_path / "names", mean=(0.5, 0.4, 0.3), std=(1, 1, 1), resize=40, interpolation="bicubic"
    )
    package = add_model(tmp_path / "net.onnx", tmp_path, options)
    assert package.source.read_bytes() == payload
    assert (package.name, package.labels) == ("other", LABELS)
    wanted = package.preprocessing
    assert wanted == Preprocessing(SIZE, 40, (0.5, 0.4, 0.3), (1.0, 1.0, 1.0), "bicubic")
    metadata = {entry.key: entry.value for entry in opened(package.folder, tmp_path / "cache").metadata_props}
    assert metadata["tessera.mean"] == "[0.5, 0.4, 0.3]"


def test_what_a_graph_says_of_itself_is_the_default(tmp_path: Path) -> None:
    model = tiny_model()
    next(entry for entry in model.metadata_props if entry.key == "tessera.mean").value = "[0.1, 0.2, 0.3]"
    onnx.save(model, tmp_path / "net.onnx")
    package = add_model(tmp_path / "net.onnx", tmp_path)
    assert (package.labels, package.preprocessing.mean) == (LABELS, (0.1, 0.2, 0.3))
    other = add_model(tmp_path / "net.onnx", tmp_path, ImportOptions(name="flags", mean=(0.9, 0.9, 0.9)))
    metadata = {entry.key: entry.value for entry in opened(other.folder, tmp_path / "cache").metadata_props}
    assert metadata["tessera.mean"] == "[0.9, 0.9, 0.9]"  # the flag, not what the file said


def test_external_data_is_moved_inside(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    onnx.save(plain_onnx(), tmp_path / "made" / "net.onnx", save_as_external_data=True, location="net.data")
    package = add_model(tmp_path / "made" / "net.onnx", tmp_path)
    (tmp_path / "made" / "net.data").unlink()
    images = tiny_images(2)
    assert np.array_equal(run(opened(package.folder, tmp_path / "cache"), images), run(tiny_model(), images))


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 22])
def test_opsets_and_a_fixed_batch(tmp_path: Path, opset: int) -> None:
    model = plain_onnx()
    model.opset_import[0].version = opset
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "net.onnx")
    assert len(add_model(tmp_path / "net.onnx", tmp_path).labels) == 5


def graph(nodes: list[onnx.NodeProto], source: list[object], target: list[object]) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, source)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, target)],
        [numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


CONV = helper.make_node("Conv", ["x", "w"], ["y"])
RELU = helper.make_node("Relu", ["x"], ["y"])


@pytest.mark.parametrize(
    ("name", "payload", "message"),
    [
        ("a.onnx", b"", "no network"),
        ("a.onnx", plain_onnx().SerializeToString()[:-500], r"a\.onnx"),
        ("a.onnx", graph([CONV], ["N", 3, 8, 8], ["N", 4, 8, 8]), "no image classifier"),
        ("a.onnx", graph([RELU], ["N", 7], ["N", 7]), "no image classifier"),
        ("a.onnx", graph([CONV], ["N", 3, 8, 9], ["N", 4, 8, 9]), "no image classifier"),
        ("a.onnx", graph([helper.make_node("Loop", ["x"], ["y"])], ["N", 3, 8, 8], ["N", 4]), "Loop"),
        ("a.pth", torchfiles.WRITTEN_BY_TORCH, "no classifier"),
        ("a.pth", torchfiles.checkpoint({"fc.bias": np.ones(5, np.float32)}), r"conv1\.weight"),
        ("a.safetensors", save({"fc.bias": np.ones(5, np.float32)}), r"conv1\.weight"),
        ("a.safetensors", b"\xff" * 40, "not a safetensors file"),
        ("a.h5", b"", "no kind that can be imported"),
    ],
)
def test_what_is_no_model_leaves_nothing(tmp_path: Path, name: str, payload: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(payload)
    library = tmp_path / "library"
    with pytest.raises(ModelError, match=message):
        add_model(tmp_path / name, library)
    assert not library.exists() or not list(library.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImportOptions(name="../up"), "cannot be a model's name"),
        (ImportOptions(labels=Path("gone")), "Cannot read the labels"),
        (ImportOptions(std=(0, 1, 1)), "above zero"),
        (ImportOptions(size=100_000), "size"),
        (ImportOptions(size=SIZE, resize=SIZE - 1), "at least the size"),
    ],
)
def test_wrong_options_leave_nothing(tmp_path: Path, options: ImportOptions, message: str) -> None:
    save_file(tiny_state(), tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=message):
        add_model(tmp_path / "a.safetensors", tmp_path / "library", options)
    assert not (tmp_path / "library").exists() or not list((tmp_path / "library").iterdir())


def test_labels_must_fit_the_classes(tmp_path: Path) -> None:
    save_file(tiny_state(), tmp_path / "a.safetensors")
    (tmp_path / "names").write_text("ant\nbee\n", encoding="utf-8")
    with pytest.raises(ModelError, match="2 labels, but the network has 5"):
        add_model(tmp_path / "a.safetensors", tmp_path, ImportOptions(labels=tmp_path / "names"))


def test_missing_file_existing_name_and_forbidden_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        add_model(tmp_path / "gone.onnx", tmp_path)
    save_file(tiny_state(), tmp_path / "a.safetensors")
    add_model(tmp_path / "a.safetensors", tmp_path / "library", TINY)
    with pytest.raises(ModelError, match=r"exists.*--name"):
        add_model(tmp_path / "a.safetensors", tmp_path / "library", TINY)
    with pytest.raises(ModelError, match="Cannot write to the models folder"):
        add_model(tmp_path / "a.safetensors", tmp_path / "a.safetensors" / "library", TINY)


def test_of_two_at_once_one_gets_the_name(tmp_path: Path) -> None:
    save_file(tiny_state(), tmp_path / "a.safetensors")
    library, failures = tmp_path / "library", []

    def add() -> None:
        try:
            add_model(tmp_path / "a.safetensors", library, TINY)
        except ModelError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 3
    assert all("exists" in failure for failure in failures)
    assert os.listdir(library) == ["a"]


def test_a_quantised_graph_stays_what_it_is(tmp_path: Path) -> None:
    calibration, _ = calibrate(tiny_model(), [tiny_images(8)], bias_correction=False)
    quantised = quantised_model(tiny_model(), calibration)
    onnx.save(quantised, tmp_path / "net.onnx")
    package = add_model(tmp_path / "net.onnx", tmp_path / "library")
    variants = open_model(package.folder, cache=tmp_path / "cache").variants
    assert {variant.precision for variant in variants.values()} == {"int8"}
    assert not any(variant.note for variant in variants.values())
    again = open_model(package.folder, cache=tmp_path / "cache").variants
    assert again == variants
    images = tiny_images(2)
    assert np.array_equal(run(onnx.load(variants["optimised"].path), images), run(quantised, images))


def test_a_model_is_no_folder_of_models(tmp_path: Path) -> None:
    save_file(tiny_state(), tmp_path / "a.safetensors")
    add_model(tmp_path / "a.safetensors", tmp_path, TINY)
    with pytest.raises(ModelError, match="--into"):
        add_model(tmp_path / "a.safetensors", tmp_path / "a", TINY)


def test_a_half_made_folder_is_not_listed(tmp_path: Path) -> None:
    save_file(tiny_state(), tmp_path / "a.safetensors")
    add_model(tmp_path / "a.safetensors", tmp_path / "library", TINY)
    (tmp_path / "library" / "a").rename(tmp_path / "library" / ".a.1.0.partial")
    assert list_models(tmp_path / "library", cache=tmp_path) == []


SAFE = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float16)})


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(ModelError):
        assert sum(array.nbytes for array in read_weights(path).values()) <= len(data)


@given(end=st.integers(0, len(SAFE) - 1))
def test_truncated_safetensors_are_refused(tmp_path_factory: pytest.TempPathFactory, end: int) -> None:
    path = tmp_path_factory.getbasetemp() / "truncated.safetensors"
    path.write_bytes(SAFE[:end])
    with pytest.raises(ModelError):
        read_weights(path)


@given(flips=st.lists(st.tuples(st.integers(0, len(SAFE) - 1), st.integers(1, 255)), min_size=1, max_size=5))
def test_flipped_bits_in_safetensors_are_survived(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(SAFE)
    for position, mask in flips:
        data[position] ^= mask
    read_or_refuse(tmp_path_factory.getbasetemp() / "flipped.safetensors", bytes(data))


@given(
    dtype=st.sampled_from(["F32", "F16", "I64", "BF16", "F99", ""]),
    shape=st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**62, 2**70]), max_size=5),
    offsets=st.lists(st.sampled_from([-1, 0, 4, 8, 24, 2**40, 2**64]), min_size=1, max_size=3),
)
def test_absurd_safetensors_headers_are_refused(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, shape: list[int], offsets: list[int]
) -> None:
    header = f'{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}'.encode()
    for length in (len(header), 2**63, 2**32):
        data = length.to_bytes(8, "little") + header + bytes(24)
        read_or_refuse(tmp_path_factory.getbasetemp() / "absurd.safetensors", data)
