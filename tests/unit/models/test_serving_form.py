"""Graphs as exporters write them: fixed batches, open sizes, a Softmax at the end. Both variants give the logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tessera import engine
from tessera.engine.errors import ModelError
from tessera.models.importing.importer import ImportOptions, add_model
from tessera.models.package import read_package
from tessera.models.preprocessing.image_size import Size
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.quantise import quantise_model
from tessera.models.registry import open_model
from tessera.models.source import float_model
from tests.imagefiles import png
from tests.unit.models.classifiers import CHANNELS, CLASSES, FLATTEN, GEMM, SIZE, classifier, right_logits, weights
from tests.unit.models.families import OPAQUE, dense

Nodes = Sequence[onnx.NodeProto]

KERNELS: np.ndarray = weights()["w2"].reshape(CLASSES, CHANNELS, 1, 1)


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], **attributes)


def added(model: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return add_model(path, folder / "library", ImportOptions(**options)).folder


def check(folder: Path, cache: Path) -> None:
    """Both variants give each image its logits, in batches of 1 to 3."""
    model = open_model(folder, cache=cache)
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    wanted = right_logits(pixels, Preprocessing().mean, Preprocessing().std)
    for variant in model.variants.values():
        with engine.load(variant.path, backend=variant.backend) as session:
            for count in (1, 2, 3):
                np.testing.assert_allclose(session.run(pixels[:count]), wanted[:count], rtol=1e-4, atol=1e-4)


SOFTMAX = node("Softmax", ["logits"], "p", axis=1)
LOG_SOFTMAX = node("LogSoftmax", ["logits"], "p", axis=-1)
SCALES = {"s": np.float32(1 / 256), "z": np.uint8(0), "shape": np.array([-1, CLASSES]), "low": np.float32(1e-7)}
ENDS: dict[str, tuple[Nodes, tuple[str, ...], dict[str, Any]]] = {
    "Softmax": ([SOFTMAX], ("p",), {}),
    "over the last axis": ([node("Softmax", ["logits"], "p")], ("p",), {}),
    "of opset 9": ([node("Softmax", ["logits"], "p")], ("p",), {"opset": 9}),
    "LogSoftmax": ([LOG_SOFTMAX], ("p",), {}),
    "and Identity": ([SOFTMAX, node("Identity", ["p"], "y")], ("y",), {}),
    "and Cast": ([SOFTMAX, node("Cast", ["p"], "y", to=TensorProto.FLOAT)], ("y",), {}),
    "in double": (
        [SOFTMAX, node("Cast", ["p"], "y", to=TensorProto.DOUBLE)],
        ("y",),
        {"output_type": TensorProto.DOUBLE},
    ),
    "and Reshape": ([SOFTMAX, node("Reshape", ["p", "shape"], "y")], ("y",), {}),
    "and Flatten": ([SOFTMAX, node("Flatten", ["p"], "y")], ("y",), {}),
    "and two copies": ([SOFTMAX, node("Identity", ["p"], "q"), node("Flatten", ["q"], "y")], ("y",), {}),
    "and Dropout": ([SOFTMAX, node("Dropout", ["p"], "y")], ("y",), {}),
    "and Clip": ([SOFTMAX, node("Clip", ["p", "low"], "y")], ("y",), {}),
    "and Log": ([SOFTMAX, node("Log", ["p"], "y")], ("y",), {}),
    "LogSoftmax and Exp": ([LOG_SOFTMAX, node("Exp", ["p"], "y")], ("y",), {}),
    "quantised": (
        [SOFTMAX, node("QuantizeLinear", ["p", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"], "y")],
        ("y",),
        {},
    ),
    "beside its logits": ([SOFTMAX], ("logits", "p"), {}),
    "before a copy of its logits": ([SOFTMAX, node("Identity", ["logits"], "y")], ("p", "y"), {}),
    "beside its logarithm": ([SOFTMAX, node("LogSoftmax", ["logits"], "l")], ("p", "l"), {}),
}


@pytest.mark.parametrize("end", ENDS)
def test_logits_are_what_a_softmax_at_the_end_reads(end: str, tmp_path: Path) -> None:
    nodes, outputs, options = ENDS[end]
    check(added(classifier(nodes, outputs, constants=SCALES, **options), tmp_path), tmp_path / "cache")


HEADS: dict[str, Nodes] = {
    "Flatten": (node("Flatten", ["p"], "y"),),
    "Reshape": (node("Reshape", ["p", "shape"], "y"),),
    "Squeeze": (node("Squeeze", ["p", "axes"], "y"),),
}


@pytest.mark.parametrize("shaping", HEADS)
@pytest.mark.parametrize("softmax", ["Softmax", "LogSoftmax"])
def test_a_softmax_before_the_last_reshape_is_one_as_well(softmax: str, shaping: str, tmp_path: Path) -> None:
    convolution = node("Conv", ["mean", "w2k", "b2"], "scores")
    model = classifier(
        [node(softmax, ["scores"], "p", axis=1), *HEADS[shaping]],
        ("y",),
        head=[convolution],
        constants={**SCALES, "w2k": KERNELS, "axes": np.array([2, 3])},
    )
    check(added(model, tmp_path), tmp_path / "cache")


def test_of_two_softmaxes_only_the_last_is_taken_off(tmp_path: Path) -> None:
    """The network's own probabilities are those of the second; what that one reads are the logits."""
    inner = node("Softmax", ["logits"], "inner", axis=1)
    folder = added(classifier([inner, node("Softmax", ["inner"], "p", axis=1)], ("p",)), tmp_path)
    kept = [made.op_type for made in float_model(read_package(folder)).graph.node]
    assert kept.count("Softmax") == 1


REFUSED: dict[str, tuple[Nodes, tuple[str, ...], dict[str, Any], str]] = {
    "Sigmoid": ([node("Sigmoid", ["logits"], "p")], ("p",), {}, "Sigmoid 'p', which gives each class"),
    "HardSigmoid": ([node("HardSigmoid", ["logits"], "p")], ("p",), {}, "HardSigmoid 'p'"),
    "Softmax over images": ([node("Softmax", ["logits"], "p", axis=0)], ("p",), {}, "spans axis 0"),
    "two results": (
        [node("Relu", ["logits"], "aux")],
        ("logits", "aux"),
        {},
        r"2 outputs \(logits, aux\).*extract_model",
    ),
    "two Softmaxes": (
        [SOFTMAX, node("Relu", ["logits"], "r"), node("Softmax", ["r"], "aux")],
        ("p", "aux"),
        {},
        r"2 outputs \(logits, r\)",
    ),
    "a mean of Softmaxes": (
        [node("Softmax", ["places"], "p", axis=1), node("GlobalAveragePool", ["p"], "m"), node("Flatten", ["m"], "y")],
        ("y",),
        {"head": [node("Conv", ["relu", "w2k", "b2"], "places")], "constants": {"w2k": KERNELS}},
        "no logits",
    ),
    "a class": (
        [node("ArgMax", ["logits"], "y", axis=1)],
        ("y",),
        {"output_type": TensorProto.INT64},
        "ArgMax",
    ),
}


@pytest.mark.parametrize("end", REFUSED)
def test_what_has_no_logits_is_refused_in_words(end: str, tmp_path: Path) -> None:
    nodes, outputs, options, words = REFUSED[end]
    with pytest.raises(ModelError, match=words):
        added(classifier(nodes, outputs, **options), tmp_path)
    assert not (tmp_path / "library").exists() or not list((tmp_path / "library").iterdir())


def test_a_model_that_ends_in_softmax_is_quantised_by_its_logits(tmp_path: Path) -> None:
    """The gate compares logits. Of probabilities, of which one is nearly 1, it would see no error."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(12):
        (photos / f"{index}.png").write_bytes(png(20 + index, 24))
    reports = []
    for name, model in (("plain", classifier()), ("ended", classifier([SOFTMAX], ("p",)))):
        folder = added(model, tmp_path, name=name)
        reports.append(quantise_model(folder, photos, cache=tmp_path / "cache", fallback="none")[1])
    assert reports[0].rounds[-1].sqnr == pytest.approx(reports[1].rounds[-1].sqnr, abs=1e-6)


def reshaped(target: Sequence[int], **attributes: Any) -> dict[str, Any]:
    """The flatten before the linear layer as a Reshape to `target`."""
    return {
        "head": [node("Reshape", ["mean", "target"], "flat", **attributes), *GEMM],
        "constants": {"target": np.array(target, np.int64)},
    }


BATCHES: dict[str, dict[str, Any]] = {
    "1": {"batch": 1},
    "8": {"batch": 8},
    "1 and its Reshape": {"batch": 1, **reshaped([1, -1])},
    "1 and its Reshape, of opset 9": {"batch": 1, "opset": 9, **reshaped([1, -1])},
    "1 and its Reshape to channels": {"batch": 1, **reshaped([1, CHANNELS])},
    "1 and a Reshape of the rest": {"batch": 1, **reshaped([-1, CHANNELS])},
    "1 and a Reshape without zeros": {"batch": 1, "opset": 14, **reshaped([1, CHANNELS], allowzero=1)},
    "4 and its Reshape": {"batch": 4, **reshaped([4, -1])},
    "a traced 1 in an open batch": reshaped([1, -1]),
    "a traced 2 in an open batch": reshaped([2, CHANNELS]),
    "written as 0": {"batch": 0},
    "written as -1": {"batch": -1},
    "not written": {"batch": None},
    "1 and a Constant": {
        "batch": 1,
        "head": [
            node("Constant", [], "target", value_ints=[1, -1]),
            node("Reshape", ["mean", "target"], "flat"),
            *GEMM,
        ],
    },
    "1 of two Reshapes with one target": {
        "batch": 1,
        "head": [
            node("Reshape", ["mean", "target"], "once"),
            node("Reshape", ["once", "target"], "flat"),
            *GEMM,
        ],
        "constants": {"target": np.array([1, CHANNELS])},
    },
    "1 with Softmax": {"batch": 1, "end": [SOFTMAX], "outputs": ("p",), **reshaped([1, -1])},
    "1 without Gemm": {
        "batch": 1,
        "head": [*FLATTEN, node("MatMul", ["flat", "wt"], "product"), node("Add", ["product", "row"], "logits")],
        "constants": {"wt": weights()["w2"].T, "row": weights()["b2"].reshape(1, -1)},
    },
}


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_that_the_file_fixes_is_left_open(batch: str, tmp_path: Path) -> None:
    model = classifier(**BATCHES[batch])
    inferred = onnx.shape_inference.infer_shapes(model)  # exporters write down what they know of values between
    check(added(inferred, tmp_path), tmp_path / "cache")


@pytest.mark.parametrize("size", [("H", "W"), (None, None), ("H", SIZE), (-1, -1), (0, 0), (SIZE, None)])
def test_open_sizes_are_bound(size: tuple[int | str | None, int | str | None], tmp_path: Path) -> None:
    folder = added(classifier(size=size), tmp_path, size=SIZE)
    assert read_package(folder).preprocessing.size == SIZE
    check(folder, tmp_path / "cache")


def test_open_sizes_are_224_unless_said_otherwise(tmp_path: Path) -> None:
    assert read_package(added(classifier(size=("H", "W")), tmp_path)).preprocessing == Preprocessing()


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((24, 32), None, Preprocessing((24, 32), 27)),
        (("H", "W"), (24, 32), Preprocessing((24, 32), 27)),
        (("H", 32), 24, None),
        (("H", 32), (24, 32), Preprocessing((24, 32), 27)),
        (("H", 32), None, Preprocessing(32, 37)),
    ],
)
def test_rectangles_are_taken_from_the_file_or_the_caller(
    size: Sequence[Any], asked: Size | None, expected: Preprocessing | None, tmp_path: Path
) -> None:
    if expected is None:
        with pytest.raises(ModelError, match="any x 32 pixels, not 24 x 24"):
            added(classifier(size=size), tmp_path, size=asked)
        return
    folder = added(classifier(size=size), tmp_path, size=asked)
    assert read_package(folder).preprocessing == expected


def test_a_folder_made_by_hand_is_brought_into_the_form_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    model = classifier([SOFTMAX], ("p",), batch=1, size=("H", "W"))
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    (folder / "model.toml").write_text(
        f'name = "net"\nonnx = "net.onnx"\n[preprocessing]\nsize = {SIZE}\nresize = {SIZE}\n', encoding="utf-8"
    )
    check(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    ("options", "flags", "words"),
    [
        ({}, {"size": 288}, f"net.onnx: It takes images of {SIZE} x {SIZE} pixels, not 288 x 288"),
        ({"size": (8, 16)}, {"size": 16}, "It takes images of 8 x 16 pixels, not 16 x 16: its file fixes that"),
        ({"size": (8, "W")}, {"size": (16, 8)}, "images of 8 x any pixels, not 16 x 8"),
    ],
)
def test_other_sizes_are_refused_by_the_name_that_the_user_gave(
    options: dict[str, Any], flags: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words) as refusal:
        added(classifier(**options), tmp_path, **flags)
    assert ".partial" not in str(refusal.value)


def test_channels_last_are_refused_with_the_exporters_flag(tmp_path: Path) -> None:
    model = classifier()
    for axis, length in enumerate((SIZE, SIZE, 3), start=1):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = length
    with pytest.raises(ModelError, match="inputs-as-nchw"):
        added(model, tmp_path)


def test_what_our_engine_cannot_run_is_served_by_onnx_runtime(tmp_path: Path) -> None:
    """Our engine has no addition of images and pixels; the reader does not know that."""
    head = [node("Add", ["relu", "mean"], "sum"), node("GlobalAveragePool", ["sum"], "again")]
    head += [node("Flatten", ["again"], "flat"), *GEMM]
    twice = {"w2": weights()["w2"] / 2}  # the mean of what the mean was added to is twice the mean
    folder = added(classifier(head=head, constants=twice), tmp_path)
    check(folder, tmp_path / "cache")
    optimised = open_model(folder, cache=tmp_path / "cache").variants["optimised"]
    assert optimised.backend == "onnxruntime"
    assert "our engine cannot: Add node 'sum': its operands have different shapes." in optimised.note
    assert ".partial" not in optimised.note


def test_scores_that_are_no_numbers_are_not_accepted(tmp_path: Path) -> None:
    huge = {"w2": np.full((CLASSES, CHANNELS), 3e38, np.float32)}
    with pytest.raises(ModelError, match="no finite numbers"):
        added(classifier(constants=huge), tmp_path)


def alone(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of each image by itself, or of two where the file fixes that, without any of our code."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    mean, std = (np.array(of, np.float32).reshape(3, 1, 1) for of in (Preprocessing().mean, Preprocessing().std))
    images = (pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255) - mean) / std
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    parts = [session.run(None, {"image": images[start : start + size]})[0] for start in range(0, len(images), size)]
    return np.concatenate(parts)


@pytest.mark.parametrize("family", OPAQUE)
def test_any_classifier_serves(family: str, tmp_path: Path) -> None:
    model = OPAQUE[family]
    folder = added(model, tmp_path, size=SIZE, resize=SIZE)
    variants = open_model(folder, cache=tmp_path / "cache").variants
    assert {variant.backend for variant in variants.values()} == {"onnxruntime"}
    assert "because our engine cannot" in variants["optimised"].note
    pixels = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    wanted = alone(model, pixels)
    for variant in variants.values():
        with engine.load(variant.path, backend=variant.backend) as session:
            for count in (1, 2, 3, 4):
                scores = session.run(pixels[:count])
                if model.graph.node[-1].op_type == "Softmax":
                    scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
                np.testing.assert_allclose(scores, wanted[:count], rtol=1e-3, atol=1e-4)


def test_a_network_that_mixes_images_whatever_the_batch_is_refused(tmp_path: Path) -> None:
    """Of two images at once, which the file fixes, each answer is the sum of both."""
    end = [node("ReduceSum", ["logits", "axis"], "sum", keepdims=1), node("Add", ["logits", "sum"], "y")]
    model = classifier(end, ("y",), batch=2, constants={"axis": np.array([0])})
    with pytest.raises(ModelError, match="would influence each other's answers"):
        added(model, tmp_path)


def test_what_neither_engine_knows_is_refused_in_words(tmp_path: Path) -> None:
    made = helper.make_node("Fancy", ["logits"], ["y"], "odd", domain="com.microsoft")
    with pytest.raises(ModelError, match=r"com\.microsoft\.Fancy node 'odd'.*ONNX Runtime does not run .* either"):
        added(classifier([made], ("y",)), tmp_path)


def test_what_only_our_reader_knows_runs_in_integers_on_onnx_runtime_once_it_is_quantised(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(6):
        (photos / f"{index}.png").write_bytes(png(20 + index, 24))
    folder = added(dense(), tmp_path, size=SIZE, resize=SIZE)
    before = open_model(folder, cache=tmp_path / "cache").variants["optimised"]
    assert (before.backend, before.precision) == ("onnxruntime", "fp32")
    assert "For int8, run: tessera models quantise" in before.note
    quantise_model(folder, photos, cache=tmp_path / "cache", fallback="none", accept=True)
    variants = open_model(folder, cache=tmp_path / "cache").variants
    after = variants["optimised"]
    assert (after.backend, after.precision, after.path.name) == ("onnxruntime", "int8", "optimised.onnx")
    assert "our engine cannot: Concat node" in after.note
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    with (
        engine.load(variants["baseline"].path, backend="onnxruntime") as floats,
        engine.load(after.path, backend=after.backend) as integers,
    ):
        wanted, found = floats.run(pixels), integers.run(pixels)
    assert 0 < np.abs(found - wanted).max() < 0.2 * np.abs(wanted).max()
