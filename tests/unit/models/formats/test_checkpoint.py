"""PyTorch checkpoints: what torch.save wrote is read, nothing is executed, nothing hostile gets further."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tessera.engine.errors import ModelError
from tessera.models.formats.checkpoint import read_checkpoint
from tessera.models.formats.pickles import LARGEST_PICKLE, read_pickle
from tessera.models.formats.state_dict import plain_keys
from tests.unit.models import torchfiles
from tests.unit.models.tiny import tiny_state
from tests.unit.models.torchfiles import WRITTEN_BY_TORCH, archive, dictionary, pickled, storage, tensor

SMALL = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float16)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints") / "file.pth"


def read(place: Path, data: bytes) -> dict[str, Any]:
    place.write_bytes(data)
    return read_checkpoint(place)


def test_a_file_that_pytorch_wrote(place: Path) -> None:
    state = plain_keys(read(place, WRITTEN_BY_TORCH))
    base = np.arange(12, dtype=np.float32)
    assert set(state) == {"t", "slice", "half", "bf", "p"}
    assert np.array_equal(state["t"], base.reshape(3, 4).T)
    assert np.array_equal(state["slice"], base[4:6])
    assert state["half"].dtype == np.float16
    assert state["half"].tolist() == [1.5]
    assert (state["bf"].dtype, state["bf"].tolist()) == (np.float32, [[2.5, -3.0]])
    assert state["p"].tolist() == [7.0]


def test_every_tensor_of_a_network_comes_through(place: Path) -> None:
    state = tiny_state()
    found = read(place, torchfiles.checkpoint(state))
    assert list(found) == list(state)
    assert all(np.array_equal(found[key], state[key]) and found[key].dtype == state[key].dtype for key in state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "state_dict_ema"])
def test_a_state_dict_inside_a_training_checkpoint(place: Path, wrapper: str) -> None:
    optimiser = torchfiles.name("torch.optim", "SGD") + b")R"
    data = torchfiles.checkpoint(
        SMALL, lambda state: dictionary({"epoch": b"K\x05", "optimizer": optimiser, wrapper: state})
    )
    assert np.array_equal(read(place, data)["a"], SMALL["a"])


def test_counters_are_left_out_before_prefixes_are_looked_for(place: Path) -> None:
    counters = {"n_averaged": np.array([5]), "module.bn1.num_batches_tracked": np.array([5])}
    found = read(place, torchfiles.checkpoint({**counters, "module.a": SMALL["a"]}))
    assert list(plain_keys(found)) == ["a"]


class Attack:
    """Would write a file if anything that its pickle names were called."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_that_a_pickle_names_is_called(place: Path, tmp_path: Path, protocol: int) -> None:
    attack = pickle.dumps({"state_dict": Attack(tmp_path / "struck")}, protocol)
    with pytest.raises(ModelError):
        read(place, archive({"data.pkl": attack}))
    assert not (tmp_path / "struck").exists()
    beside = torchfiles.checkpoint(
        SMALL, lambda state: dictionary({"x": b"cposix\nsystem\nX\x02\0\0\0ls\x85R", "model": state})
    )
    assert set(read(place, beside)) == {"a", "b"}


def lone(kind: str) -> bytes:
    """A checkpoint whose only tensor refers to a record that is not there."""
    return archive({"data.pkl": pickled(dictionary({"a": tensor(storage(kind, "0", 4), 0, (2,), (1,))}))})


def view(offset: int = 0, shape: tuple[int, ...] = (2,), strides: tuple[int, ...] = (1,), count: int = 4) -> bytes:
    entry = tensor(storage("FloatStorage", "0", count), offset, shape, strides)
    return archive({"data.pkl": pickled(dictionary({"a": entry})), "data/0": bytes(16)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PyTorch checkpoint"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", r"before 1\.6.*torch\.save"),
        (archive({"x": b""}), r"no data\.pkl"),
        (archive({"data.pkl": b"", "constants.pkl": b""}), "TorchScript"),
        (archive({"data.pkl": pickled(b"K\x01")}), "no state dict"),
        (archive({"data.pkl": b"\x80\x02}"}), "ends early"),
        (archive({"data.pkl": b"\x80\x02P1\n."}), "opcode 0x50"),
        (archive({"data.pkl": bytes(LARGEST_PICKLE + 1)}), "at most"),
        (archive({"data.pkl": pickled(b"}")}, zipfile.ZIP_DEFLATED), "compressed"),
        (view(shape=(5,)), "'a' of shape"),
        (view(offset=3), "'a' of shape"),
        (view(offset=-1), "'a' of shape"),
        (view(strides=(-1,)), "'a' of shape"),
        (view(shape=(2, 2)), "'a' of shape"),
        (view(shape=(0,)), "'a' of shape"),
        (view(shape=(1 << 40,), strides=(0,)), "'a' of shape"),
        (view(shape=(1,) * 9, strides=(1,) * 9), "'a' of shape"),
        (view(shape=(1 << 40,), count=1 << 41), "more than the file has"),
        (view(count=5), "16 bytes instead of 20"),
        (lone("FloatStorage"), "data/0 is missing"),
        (lone("QInt8Storage"), "QInt8Storage"),
    ],
)
def test_what_cannot_be_read_is_said(place: Path, data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read(place, data)
    assert str(place) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        read_checkpoint(tmp_path / "gone.pth")
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path)


def test_strides_of_single_elements_mean_nothing(place: Path) -> None:
    assert read(place, view(shape=(2, 1), strides=(1, 1 << 200)))["a"].shape == (2, 1)


def peak_of(place: Path, data: bytes) -> int:
    """Most bytes that Python held while reading, whatever came of it."""
    place.write_bytes(data)
    tracemalloc.start()
    try:
        read_checkpoint(place)
    except ModelError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_memory_is_bounded_by_the_file(place: Path) -> None:
    many = {f"t{index}": tensor(storage("FloatStorage", "0", 1 << 18), 0, (1 << 18,), (1,)) for index in range(2000)}
    shared = archive({"data.pkl": pickled(dictionary(many)), "data/0": bytes(1 << 20)})
    assert peak_of(place, shared) < 20 << 20
    assert peak_of(place, archive({"data.pkl": b"\x80\x02" + b"Nr\xff\xff\xff\x7f" + b"."})) < 1 << 20
    bomb = archive({"data.pkl": bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    assert peak_of(place, bomb) < 1 << 20
    empty_dicts = b"\x80\x02" + b"}" * 1_000_000 + b"."
    assert peak_of(place, archive({"data.pkl": empty_dicts})) < 100 << 20


WHOLE = torchfiles.checkpoint(SMALL)


def readable_or_refused(place: Path, data: bytes) -> None:
    try:
        state = read(place, data)
    except ModelError:
        return
    assert sum(array.nbytes for array in state.values()) <= 2 * len(data)


@given(end=st.integers(0, len(WHOLE)))
def test_any_truncation_is_refused(place: Path, end: int) -> None:
    if end < len(WHOLE):
        with pytest.raises(ModelError):
            read(place, WHOLE[:end])


POSITIONS = st.integers(0, len(WRITTEN_BY_TORCH) - 1)


@given(flips=st.lists(st.tuples(POSITIONS, st.integers(1, 255)), min_size=1, max_size=6))
def test_any_flipped_bits_are_survived(place: Path, flips: list[tuple[int, int]]) -> None:
    data = bytearray(WRITTEN_BY_TORCH)
    for position, mask in flips:
        data[position] ^= mask
    readable_or_refused(place, bytes(data))


PIECES = st.one_of(
    st.sampled_from(b"()}]N012t\x85\x86\x87aesuQRb\x81\x93\x94").map(lambda code: bytes([code])),
    st.sampled_from([b"q\0", b"h\0", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"K\x02", b"J\0\0\0\x80"]),
    st.sampled_from([b"\x8a\x01\x05", b"X\xff\xff\xff\xff", torchfiles.text("storage"), torchfiles.text("state_dict")]),
    st.sampled_from([torchfiles.name("os", "system"), torchfiles.name("collections", "OrderedDict")]),
    st.sampled_from([torchfiles.name("torch._utils", "_rebuild_tensor_v2"), storage("FloatStorage", "0", 4)]),
    st.sampled_from([torchfiles.numbers((2, 2)), dictionary({"a": b"N"})]),
)


@given(pieces=st.lists(PIECES, max_size=40))
@example(pieces=[b"}", b"q\0", torchfiles.text("state_dict"), b"h\0", b"s"])
def test_any_program_of_opcodes_ends(place: Path, pieces: list[bytes]) -> None:
    readable_or_refused(place, archive({"data.pkl": pickled(b"".join(pieces)), "data/0": bytes(16)}))


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_pickle_or_refused(data: bytes) -> None:
    with suppress(ModelError):
        read_pickle(data)


INTEGERS = st.one_of(st.integers(-3, 5), st.sampled_from([2**31, 2**63, 2**64, -(2**63), 2**400]))


@given(
    offset=INTEGERS,
    shape=st.lists(INTEGERS, max_size=10).map(tuple),
    strides=st.lists(INTEGERS, max_size=10).map(tuple),
    count=INTEGERS,
)
def test_any_view_lies_within_its_storage(
    place: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], count: int
) -> None:
    readable_or_refused(place, view(offset, shape, strides, count))
