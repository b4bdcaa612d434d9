"""Names of models, checks of tensors, statistics, and gRPC messages: what the two transports share."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tessera.app.errors import InvalidInferenceRequestError, RequestError, TooManyImagesError, UnknownModelError
from tessera.app.observability.metrics import Metrics
from tessera.app.oip.catalogue import Catalogue
from tessera.app.oip.grpc.messages import fill_response, parse_infer
from tessera.app.oip.grpc.received import Received
from tessera.app.oip.grpc.schema import Schema
from tessera.app.oip.statistics import read_statistics
from tessera.app.oip.tensors import build_outputs, images_of
from tessera.app.oip.wire.datatypes import BYTES, DTYPES, elements_from_binary, pack_elements
from tessera.app.oip.wire.description import Duration
from tessera.app.oip.wire.interface import Interface
from tessera.app.oip.wire.request import InputTensor, RequestedOutput
from tessera.app.oip.wire.response import OutputTensor
from tessera.app.scheduling.ticket import Outcome

LABELS = [f"label {index}" for index in range(5)]
INTERFACE = Interface("x", "y", (4, 6), LABELS, max_images=8)
INFERENCE = Schema("inference.proto")


@given(st.permutations(["baseline", "optimised", "alpha", "zeta"]), st.integers(1, 4))
def test_versions_do_not_depend_on_order_or_on_what_else_there_is(names: list[str], count: int) -> None:
    variants = names[:count]
    catalogue = Catalogue("m", variants)
    for variant, version in (("baseline", "1"), ("optimised", "2")):
        if variant in variants:
            assert catalogue.version_of(variant) == version
    for variant in variants:
        version = catalogue.version_of(variant)
        assert catalogue.address("m", version) == ("m", variant)
        assert (
            catalogue.address(f"m-{variant}") == catalogue.address(f"m-{variant}", version) == (f"m-{variant}", variant)
        )
    assert catalogue.address("m") == ("m", None)
    assert len(set(catalogue.entries["m"].versions)) == count
    for name, version in (("other", ""), ("m", "0"), ("m", "baseline"), ("m-baseline", "2")):
        with pytest.raises(UnknownModelError):
            catalogue.address(name, version)


def numbers(datatype: str, *shape: int, value: float = 0) -> InputTensor:
    return InputTensor("x", datatype, shape, np.full(shape, value, DTYPES[datatype]))


def test_every_kind_of_images_is_taken() -> None:
    for shape in ((2,), (2, 1)):
        INTERFACE.check_input("x", BYTES, shape)
        files = images_of(InputTensor("x", BYTES, shape, elements=(b"a", b"b")))
        assert [upload.data for upload in files] == [b"a", b"b"]
    for tensor in (numbers("FP32", 2, 3, 4, 6, value=65504), numbers("UINT8", 8, 4, 6, 3, value=255)):
        INTERFACE.check_input("x", tensor.datatype, tensor.shape)
        taken = images_of(tensor)
        assert isinstance(taken, np.ndarray)
        assert taken.dtype == DTYPES[tensor.datatype]
        assert taken.shape == tensor.shape


@pytest.mark.parametrize(
    ("name", "datatype", "shape"),
    [
        ("x", "FP32", (2, 4, 6, 3)),
        ("x", "FP32", (3, 4, 6)),
        ("x", "FP32", (0, 3, 4, 6)),
        ("x", "UINT8", (2, 3, 4, 6)),
        ("x", "FP64", (2, 3, 4, 6)),
        ("x", BYTES, ()),
        ("x", BYTES, (0,)),
        ("x", BYTES, (1, 2)),
        ("z", BYTES, (1,)),
    ],
)
def test_other_tensors_are_refused(name: str, datatype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInferenceRequestError):
        INTERFACE.check_input(name, datatype, shape)


@pytest.mark.parametrize("value", [np.nan, 65505, -np.inf])
def test_one_bad_value_among_many_is_seen(value: float) -> None:
    tensor = numbers("FP32", 8, 3, 4, 6)
    assert tensor.values is not None
    tensor.values[7, 2, 3, 5] = value
    with pytest.raises(InvalidInferenceRequestError):
        images_of(tensor)


def test_too_many_images_and_a_second_input_are_refused() -> None:
    with pytest.raises(TooManyImagesError):
        INTERFACE.check_input("x", "UINT8", (9, 4, 6, 3))
    for count in (0, 2, 100_000):
        with pytest.raises(InvalidInferenceRequestError, match="the model has one, 'x'"):
            INTERFACE.check_one_input(count)


def test_outputs_are_what_was_asked_for() -> None:
    logits = np.float32([[0, 3, 1, 2, -1], [5, 4, 3, 2, 1]])
    wanted = (RequestedOutput("y", True, 2),)
    INTERFACE.check_outputs([])
    INTERFACE.check_outputs(["y"])
    ((best, binary),) = build_outputs(wanted, logits, LABELS)
    assert binary
    assert best.elements == (
        b"3.000000:1:label 1",
        b"2.000000:3:label 3",
        b"5.000000:0:label 0",
        b"4.000000:1:label 1",
    )
    for names in (["z"], ["y", "y"], ["y", "z"]):
        with pytest.raises(InvalidInferenceRequestError):
            INTERFACE.check_outputs(names)


def test_statistics_are_those_of_the_metrics() -> None:
    metrics = Metrics()
    first, second = (Outcome(np.zeros(1), None, queue, 0.5, 1) for queue in (0.25, 1.0))
    metrics.request_ran("a", [first, second], input_seconds=0.125)
    metrics.answer_built("a", 0.0625)
    metrics.request_finished(variant="a", outcome="ok", seconds=2.0)
    metrics.request_finished(variant="a", outcome="queue_full", seconds=1.0)
    metrics.request_finished(variant="a", outcome="corrupt_image", seconds=0.5)
    for images, seconds in ((1, 0.5), (1, 0.25), (16, 2.0)):
        metrics.batch_finished("a", images, seconds, seconds)
    entry = read_statistics(metrics.render("")[0].decode())["a"]
    assert entry.last_inference > 1.7e12
    assert (entry.inference_count, entry.execution_count) == (18, 3)
    assert entry.batches == {1: Duration(2, 750_000_000), 16: Duration(1, 2 * 10**9)}
    durations = (entry.success, entry.fail, entry.queue, entry.compute_input, entry.compute_infer, entry.compute_output)
    # The first batch begins after 0.25 s, the second ends after 1.5 s.
    assert [duration.ns for duration in durations] == [2e9, 1.5e9, 0.25e9, 0.125e9, 1.25e9, 0.0625e9]
    assert [duration.count for duration in durations] == [1, 2, 1, 1, 1, 1]


@st.composite
def inputs(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(["FP32", "UINT8"]))
    shape = (draw(st.integers(1, 3)), *INTERFACE.row_shapes[datatype])
    return datatype, draw(hnp.arrays(DTYPES[datatype].newbyteorder("="), shape))


@given(inputs(), st.booleans(), st.text(max_size=5))
def test_messages_are_read_back_exactly(tensor: tuple[str, np.ndarray], raw: bool, identity: str) -> None:
    datatype, array = tensor
    message = INFERENCE["ModelInferRequest"](id=identity)
    entry = message.inputs.add(name="x", datatype=datatype, shape=array.shape)
    if raw:
        message.raw_input_contents.append(array.tobytes())
    else:
        field = {"FP32": "fp32_contents", "UINT8": "uint_contents"}[datatype]
        getattr(entry.contents, field).extend(array.ravel().tolist())
    parsed = parse_infer(received(message.SerializeToString()).read(), INTERFACE)
    assert parsed.id == identity
    read = parsed.input
    assert (read.name, read.datatype, read.shape) == ("x", datatype, array.shape)
    np.testing.assert_array_equal(read.values, array)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.booleans())
def test_elements_of_messages_are_read_back_exactly(elements: list[bytes], raw: bool) -> None:
    message = INFERENCE["ModelInferRequest"]()
    entry = message.inputs.add(name="x", datatype=BYTES, shape=[len(elements)])
    if raw:
        message.raw_input_contents.append(pack_elements(elements))
    else:
        entry.contents.bytes_contents.extend(elements)
    assert list(parse_infer(message, INTERFACE).input.elements) == elements


def received(data: bytes) -> Received:
    return Received(INFERENCE["ModelInferRequest"], data)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_refused_in_a_sentence(data: bytes) -> None:
    """What protobuf takes for a message is one here too."""
    kind = INFERENCE["ModelInferRequest"]
    try:
        expected = kind.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidInferenceRequestError, match="not a message"):
            received(data).read()
    else:
        assert received(data).read() == expected


CROWDED = {
    "inputs": b"\x2a\x00" * 100_000,
    "outputs": b"\x32\x00" * 100_000,
    "parameters": b"\x22\x00" * 100_000,
    "raw contents": b"\x3a\x00" * 100_000,
    "fields that nobody knows": b"\xf8\x07\x00" * 100_000,
    "elements in an input": b"\x2a\x83\x80\x80\x01" + b"\x2a\xff\xff\x7f" + b"\x42\x00" * 1_048_575 + b"\x00",
}


@pytest.mark.parametrize("case", CROWDED)
def test_a_message_of_very_many_parts_is_refused_before_it_is_made(case: str) -> None:
    with pytest.raises(InvalidInferenceRequestError, match="more than 8192 fields"):
        received(CROWDED[case]).read()


@pytest.mark.parametrize("field", ["int64_contents", "uint64_contents"])
def test_numbers_that_take_eight_times_their_bytes_are_refused_before_they_are_made(field: str) -> None:
    message = INFERENCE["ModelInferRequest"]()
    getattr(message.inputs.add().contents, field).extend([1] * 8_000_000)
    with pytest.raises(InvalidInferenceRequestError, match=field):
        received(message.SerializeToString()).read()


def test_a_name_without_end_is_refused() -> None:
    with pytest.raises(InvalidInferenceRequestError, match="model_name has 70000 bytes"):
        received(INFERENCE["ModelInferRequest"](model_name="x" * 70_000).SerializeToString()).read()


@given(st.data())
def test_any_message_is_parsed_or_refused(data: st.DataObject) -> None:
    message = INFERENCE["ModelInferRequest"]()
    for _ in range(data.draw(st.integers(0, 2))):
        entry = message.inputs.add(
            name=data.draw(st.sampled_from(["x", "", "z"])),
            datatype=data.draw(st.sampled_from(["FP32", "UINT8", "FP16", "BYTES", "", "X"])),
            shape=data.draw(st.lists(st.integers(-3, 2**62), max_size=9) | st.sampled_from([[1], [1, 3, 4, 6]])),
        )
        entry.contents.fp32_contents.extend(data.draw(st.lists(st.floats(width=32), max_size=3)))
        entry.contents.uint_contents.extend(data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=3)))
    message.raw_input_contents.extend(data.draw(st.lists(st.binary(max_size=9), max_size=2)))
    for holder, key in itertools.product([message, *message.inputs], ["priority", "timeout", "triton_x"]):
        if data.draw(st.booleans()):
            holder.parameters[key].double_param = data.draw(st.floats())
    try:
        parse_infer(message, INTERFACE)
    except RequestError as error:
        refused: RequestError | None = error
    else:
        refused = None
    assert refused is None or (refused.status == 400 and refused.message.endswith("."))


def test_outputs_become_raw_contents() -> None:
    logits = np.float32([[1, 2], [3, 4]])
    response = INFERENCE["ModelInferResponse"]()
    best = OutputTensor("best", (2, 1), elements=(b"a", b"bc"))
    fill_response(response, "m", "2", "mine", [(OutputTensor("y", logits.shape, logits), False), (best, True)])
    assert (response.model_name, response.model_version, response.id) == ("m", "2", "mine")
    assert [(output.name, output.datatype, list(output.shape)) for output in response.outputs] == [
        ("y", "FP32", [2, 2]),
        ("best", "BYTES", [2, 1]),
    ]
    numbers_back, texts_back = response.raw_output_contents
    np.testing.assert_array_equal(np.frombuffer(numbers_back, "<f4").reshape(2, 2), logits)
    assert [bytes(e) for e in elements_from_binary("best", (2,), memoryview(texts_back))] == [b"a", b"bc"]
