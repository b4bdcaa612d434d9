"""The backend against the double: answers, inputs, gears, devices, threads, kinds of machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera import engine
from tessera.engine.backends.ascend.runtime import Runtime
from tessera.engine.backends.ascend.session import AscendSession
from tessera.engine.errors import BackendUnavailableError, InputError, ModelError
from tests.ascend.conftest import NORMALISATION
from tests.ascend.double_builds import Double
from tests.ascend.omfile import half_normalisation, header, write_om
from tests.unit.models.tiny import tiny_images
from tests.waiting import until

Open = Callable[..., AscendSession]


@pytest.fixture
def open_(double: Double) -> Iterator[Open]:
    """Opens sessions on the double; afterwards everything must have been used rightly and given back."""
    runtime: list[Runtime] = []
    sessions: list[AscendSession] = []

    def open_session(path: Path, **options: Any) -> AscendSession:
        if not runtime:
            runtime.append(Runtime(double.library()))
        sessions.append(AscendSession(path, runtime=runtime[0], **options))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()
    double.assert_clean()


@pytest.fixture(scope="module")
def reference(network: Path) -> Iterator[engine.Session]:
    with engine.load(network, backend="onnxruntime") as session:
        yield session


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def until_copies_overlap(double: Double, run: Callable[[], None]) -> None:
    """Repeat something: on a loaded machine its threads may take turns for once."""

    def overlap() -> bool:
        run()
        return bool(double.report()["overlapped_copies"] > 0)

    double.set_faults("count=1;slow=2")
    until(overlap)


def agree(got: np.ndarray, expected: np.ndarray, relative: float = 1e-4) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=relative * float(np.abs(expected).max()))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11, 16, 17, 37])
def test_any_number_of_images_gives_each_its_own_answer(
    count: int, open_: Open, float_om: Path, reference: engine.Session
) -> None:
    images = tiny_images(count)
    agree(open_(float_om).run(images), reference.run(images))


def test_pixels_are_normalised_on_the_device_as_aipp_does(
    open_: Open, pixel_om: Path, reference: engine.Session
) -> None:
    session = open_(pixel_om)
    images = pixels(9)
    agree(session.run(images), reference.run(half_normalisation(NORMALISATION).apply(images)), 2e-3)
    info = session.describe()
    assert info.normalises
    assert (info.inputs[0].shape, info.inputs[0].dtype) == ((None, 32, 32, 3), "uint8")
    assert (info.outputs[0].shape, info.outputs[0].dtype) == ((None, 5), "float16")
    for wrong, match in (
        (images[:, :31], r"\[N, 32, 32, 3\]"),
        (images[:0], "N >= 1"),
        (images.astype(np.float32), "uint8 pixels"),
        (images.tolist(), "NumPy array"),
    ):
        with pytest.raises(InputError, match=match):
            session.run(wrong)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pixels_are_normalised_here_where_the_model_takes_floats(
    dtype: str, open_: Open, network: Path, reference: engine.Session, tmp_path: Path
) -> None:
    path = write_om(network, tmp_path / "model.om", input_type=dtype)
    images = pixels(3)
    agree(open_(path, normalisation=NORMALISATION).run(images), reference.run(images), 3e-3)
    without = open_(path)
    assert not without.describe().normalises
    with pytest.raises(InputError, match=r"\[N, 3, 32, 32\]|float"):
        without.run(images)


def test_a_fixed_batch_size_is_padded_and_split(
    open_: Open, network: Path, reference: engine.Session, tmp_path: Path
) -> None:
    session = open_(write_om(network, tmp_path / "fixed.om", batch=4))
    for count in (1, 4, 6):
        images = tiny_images(count)
        agree(session.run(images), reference.run(images), 2e-3)


def test_it_says_what_it_is(open_: Open, float_om: Path, network: Path) -> None:
    info = open_(float_om, graph=network).describe()
    assert (info.backend, info.isa, info.precision) == ("ascend", "Ascend310B1", "fp16")
    with engine.load(network, backend="onnxruntime") as same:
        assert info.macs == same.describe().macs > 0
    (status,) = open_(float_om).devices()
    assert status.healthy
    assert status.last_error == ""
    assert status.memory_free_bytes is not None
    assert status.memory_total_bytes is not None
    assert 0 < status.memory_free_bytes < status.memory_total_bytes
    assert set(status.utilisation) == {"cube", "vector"}, "aicpu says -1: unknown"


def test_threads_get_their_own_answers_while_copies_overlap_execution(
    open_: Open, double: Double, float_om: Path, reference: engine.Session
) -> None:
    session = open_(float_om)
    batches = [tiny_images(1 + number % 5, seed=number) for number in range(24)]
    expected = [reference.run(batch) for batch in batches]

    def run() -> None:
        with ThreadPoolExecutor(8) as threads:
            for got, wanted in zip(threads.map(session.run, batches), expected, strict=True):
                agree(got, wanted)

    until_copies_overlap(double, run)


def test_one_large_batch_overlaps_its_own_parts(
    open_: Open, double: Double, float_om: Path, reference: engine.Session
) -> None:
    session = open_(float_om)
    images = tiny_images(80)
    expected = reference.run(images)
    until_copies_overlap(double, lambda: agree(session.run(images), expected))


def test_several_devices_take_turns(
    monkeypatch: pytest.MonkeyPatch, double: Double, open_: Open, float_om: Path, reference: engine.Session
) -> None:
    monkeypatch.setenv("ACL_DOUBLE_DEVICES", "3")
    session = open_(float_om)
    assert [status.index for status in session.devices()] == [0, 1, 2]
    measured = double.report()["executions"]
    assert measured[0] > 0, "the gears were timed there"
    images = tiny_images(2)
    for _ in range(6):
        agree(session.run(images), reference.run(images))
    runs = [after - before for after, before in zip(double.report()["executions"], measured, strict=True)]
    assert runs == [2, 2, 2]
    assert open_(float_om, devices=[1]).devices()[0].index == 1


def test_a_batch_goes_to_the_device_with_least_to_do_and_what_runs_at_once_follows_the_devices(
    monkeypatch: pytest.MonkeyPatch, double: Double, open_: Open, float_om: Path
) -> None:
    monkeypatch.setenv("ACL_DOUBLE_DEVICES", "2")
    session = open_(float_om)
    assert session.parallel_runs == 4
    balancer = session._balancer
    with balancer.slot() as (first, _):
        with balancer.slot() as (second, _):
            assert first is not second
        with balancer.slot() as (third, _):
            assert third is second, "it is the first one's turn, but that has a batch already"
        double.set_faults("setdevice=507033")
        balancer.fail(first, RuntimeError("lost"))
        assert session.parallel_runs == 2, "although it cannot be taken down yet"


def test_several_loads_share_their_weights(
    open_: Open, double: Double, float_om: Path, reference: engine.Session
) -> None:
    def used(session: AscendSession) -> int:
        (status,) = session.devices()
        assert status.memory_free_bytes is not None
        assert status.memory_total_bytes is not None
        return status.memory_total_bytes - status.memory_free_bytes

    single = open_(float_om)
    one = used(single)
    single.close()
    four_times = open_(float_om, instances=4)
    weights = float_om.stat().st_size - 4096
    assert used(four_times) < 4 * one - 2 * weights
    batches = [tiny_images(2, seed=number) for number in range(16)]
    with ThreadPoolExecutor(8) as threads:
        for got, batch in zip(threads.map(four_times.run, batches), batches, strict=True):
            agree(got, reference.run(batch))


@pytest.mark.parametrize("variant", ["rc", "cann6"])
def test_boards_and_old_versions(variant: str, tmp_path: Path, pixel_om: Path, reference: engine.Session) -> None:
    double = Double(tmp_path, variant)
    runtime = Runtime(double.library())
    assert runtime.on_device == (variant == "rc")
    with AscendSession(pixel_om, runtime=runtime) as session:
        images = pixels(21)
        agree(session.run(images), reference.run(half_normalisation(NORMALISATION).apply(images)), 2e-3)
        (status,) = session.devices()
        assert (status.utilisation == {}) == (variant == "cann6")
        if variant == "rc":
            report = double.report()
            assert report["live"]["host_memory"] == 0, "host and device are one memory: nothing is staged"
            assert report["overlapped_copies"] == 0
    double.assert_clean()


def test_a_thread_that_never_saw_the_device_may_run_and_close(
    open_: Open, float_om: Path, reference: engine.Session
) -> None:
    session = open_(float_om)
    images, results = tiny_images(2), []

    def use() -> None:
        results.append(session.run(images))
        session.devices()
        session.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    agree(results[0], reference.run(images))
    with pytest.raises(BackendUnavailableError, match="closed"):
        session.run(images)
    assert session.devices() == ()


def test_closing_waits_for_batches_in_flight(
    open_: Open, double: Double, float_om: Path, reference: engine.Session
) -> None:
    session = open_(float_om)
    images = tiny_images(16)
    closing = threading.Thread(target=session.close)
    with ThreadPoolExecutor(1) as threads:
        double.set_faults("hold=1*1")
        running = threads.submit(session.run, images)
        try:
            until(lambda: any(status.utilisation.get("cube") for status in session.devices()))
            closing.start()
            closing.join(0.1)
            assert closing.is_alive()
        finally:
            double.set_faults("")
        closing.join()
        agree(running.result(), reference.run(images))


def test_closing_waits_for_a_slot_that_is_taken(open_: Open, float_om: Path) -> None:
    session = open_(float_om)
    closing = threading.Thread(target=session.close)
    with session._balancer.slot() as (_, slot):
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        slot.run(tiny_images(1), 1, session._image.encode, 10_000)
    closing.join()


def test_a_run_says_what_its_stages_took(open_: Open, network: Path, reference: engine.Session, tmp_path: Path) -> None:
    session, images = open_(write_om(network, tmp_path / "static.om", batch=4, weights="float32")), tiny_images(11)
    started = time.perf_counter()
    logits, stages = session.run_in_stages(images[:4])
    elapsed = time.perf_counter() - started
    agree(logits, reference.run(images[:4]))
    assert list(stages) == ["host", "h2d", "execution", "d2h"]
    assert 0 < sum(stages.values()) <= elapsed
    logits, stages = session.run_in_stages(images)
    agree(logits, reference.run(images))
    assert min(stages.values()) > 0
    assert reference.run_in_stages(images)[1] == {}


def test_files_that_are_no_om_are_refused_before_the_device_is_touched(float_om: Path, tmp_path: Path) -> None:
    whole = float_om.read_bytes()
    for content, match in (
        (b"", "no .om file"),
        (b"\x08\x07" + bytes(400), r"no \.om file.*tessera models convert"),
        (whole[:-1], "copy or convert it again"),
        (whole + b"\0", "copy or convert it again"),
        (whole[:4] + b"\0\2\0\0" + whole[8:], "header of 512 bytes"),
    ):
        path = tmp_path / "model.om"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=match):
            engine.load(path)
    with pytest.raises(ModelError, match=r"no \.om file"):
        engine.load(Path(__file__), backend="ascend")


def test_the_old_header_without_the_long_length_is_read(
    open_: Open, float_om: Path, reference: engine.Session, tmp_path: Path
) -> None:
    whole = bytearray(float_om.read_bytes())
    whole[184:192] = bytes(8)
    (tmp_path / "old.om").write_bytes(whole)
    images = tiny_images(2)
    agree(open_(tmp_path / "old.om").run(images), reference.run(images))


def test_a_file_that_cann_refuses_is_the_files_fault(open_: Open, tmp_path: Path) -> None:
    (tmp_path / "model.om").write_bytes(header(64) + bytes(64))
    with pytest.raises(ModelError, match=r"545001 \(GE_LOAD_MODEL\).*CANN says: EZ9999"):
        open_(tmp_path / "model.om")
