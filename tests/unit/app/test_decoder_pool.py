"""Requests on their way through the decoder threads: who hears of what, and how often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera.app.errors import CorruptImageError
from tessera.app.imaging.decoder_pool import DecoderPool, Decoding
from tessera.app.imaging.estimate import Estimate

WAIT = 10.0


LARGE = Estimate(40 << 20, 1.0)
SMALL = Estimate(1 << 20, 0.001)


class Opened:
    """A file that has been looked at; large where it says so."""

    def __init__(self, decoder: Decoder, data: bytes) -> None:
        self.cost = LARGE if data[1:].startswith(b"large") else SMALL
        self._decode = partial(decoder.decode, data)

    def decode(self, out: np.ndarray, *, wanted: Callable[[], bool]) -> None:
        self._decode(out, wanted)


class Decoder:
    """Writes a file's first byte into its row, or raises what the byte stands for; waits where a test says so."""

    memory = 64 << 20

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def open(self, data: bytes) -> Opened:
        if data[1:] == b"no image":
            raise CorruptImageError(f"no image: {data[0]}")
        return Opened(self, data)

    def decode(self, data: bytes, out: np.ndarray, wanted: Callable[[], bool]) -> None:
        self.seen.append(data[0])
        self.wanted = wanted
        if data.endswith(b"wait"):
            self.entered.release()
            assert self.gate.wait(WAIT)
        if data[1:] == b"bad":
            raise CorruptImageError(f"damaged: {data[0]}")
        if data[1:] == b"bug":
            raise MemoryError
        out[:] = data[0]


def pool(decoder: Decoder, threads: int = 2) -> DecoderPool:
    return DecoderPool(decoder, threads)  # type: ignore[arg-type]


class Over:
    """Who is told that a request is decoded."""

    def __init__(self) -> None:
        self.calls: list[Decoding] = []
        self._told = threading.Semaphore(0)

    def __call__(self, decoding: Decoding) -> None:
        self.calls.append(decoding)
        self._told.release()

    def wait(self) -> Decoding:
        assert self._told.acquire(timeout=WAIT)
        return self.calls[-1]


@settings(max_examples=50)
@given(
    files=st.lists(st.sampled_from([b"", b"bad", b"bug", b"no image", b"large"]), min_size=1, max_size=12),
    threads=st.integers(1, 4),
)
def test_the_end_is_told_once_and_the_first_bad_image_is_always_known(files: list[bytes], threads: int) -> None:
    over, decoders = Over(), pool(Decoder(), threads)
    rows = np.full((len(files), 2, 2, 3), 255, np.uint8)
    decoders.start([bytes([index]) + kind for index, kind in enumerate(files)], rows, over)
    decoding = over.wait()
    decoders.stop()
    bad = [index for index, kind in enumerate(files) if kind not in (b"", b"large")]
    assert bool(decoding.failures) == bool(bad)
    if bad:
        assert min(decoding.failures) == bad[0], "a client hears of the same image each time"
    else:
        assert (rows == np.arange(len(files), dtype=np.uint8)[:, None, None, None]).all()
        assert all(seconds > 0 for seconds in decoding.seconds)
        assert (decoding.core_seconds == 0) == (b"large" in files), "large ones say nothing of what others take"
    assert len(over.calls) == 1


def test_images_behind_a_bad_one_are_not_decoded() -> None:
    decoder, over = Decoder(), Over()
    pool(decoder, 1).start([b"\0bad", b"\1", b"\2"], np.empty((3, 1, 1, 3), np.uint8), over)
    over.wait()
    assert decoder.seen == [0]


def test_an_abandoned_request_is_told_when_nothing_writes_into_its_rows_any_more() -> None:
    decoder, over, ended = Decoder(), Over(), threading.Event()
    decoders = pool(decoder, 1)
    decoding = decoders.start([b"\0wait", b"\1"], np.empty((2, 1, 1, 3), np.uint8), over)
    assert decoder.entered.acquire(timeout=WAIT)
    assert decoder.wanted()
    assert not decoding.abandon(ended.set)
    assert not ended.is_set()
    assert not decoder.wanted(), "what is being decoded may stop"
    decoder.gate.set()
    assert ended.wait(WAIT)
    decoders.start([b"\2"], np.empty((1, 1, 1, 3), np.uint8), over)
    over.wait()
    assert decoder.seen == [0, 2], "what had not begun is dropped"
    assert len(over.calls) == 1, "and nobody waits for the first request"


def test_what_waits_behind_others_is_abandoned_at_once() -> None:
    decoder, over = Decoder(), Over()
    decoders = pool(decoder, 1)
    first = decoders.start([b"\0wait"], np.empty((1, 1, 1, 3), np.uint8), over)
    assert decoder.entered.acquire(timeout=WAIT)
    second = decoders.start([b"\1"], np.empty((1, 1, 1, 3), np.uint8), over)
    assert second.abandon(lambda: pytest.fail("there is nothing to wait for"))
    decoder.gate.set()
    assert over.wait() is first


def test_an_abandoned_request_is_over_once_however_the_race_goes() -> None:
    decoders = pool(Decoder(), 2)
    for _ in range(300):
        told: list[str] = []
        ended = threading.Event()

        def over(_: Decoding, told: list[str] = told) -> None:
            told.append("over")

        def end(told: list[str] = told, ended: threading.Event = ended) -> None:
            told.append("end")
            ended.set()

        decoding = decoders.start([b"\1", b"\2"], np.empty((2, 1, 1, 3), np.uint8), over)
        if decoding.abandon(end):
            before = list(told)
            assert before in ([], ["over"])
        else:
            assert ended.wait(WAIT)
            assert told in (["end"], ["over", "end"]), "nothing is run after its room has been given back"
    decoders.stop()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_small_images_are_decoded_while_every_thread_is_at_a_large_one(threads: int) -> None:
    decoder, large, small = Decoder(), Over(), Over()
    decoders = pool(decoder, threads)
    first = [decoders.start([bytes([n]) + b"large wait"], rows(1), large) for n in range(8)]
    assert decoder.entered.acquire(timeout=WAIT)
    for n in range(20):
        decoders.start([bytes([100 + n])], rows(1), small)
        small.wait()
    assert not large.calls
    decoder.gate.set()
    for _ in first:
        large.wait()
    decoders.stop()


def test_large_images_hold_no_more_memory_together_than_there_is() -> None:
    decoder, over = Decoder(), Over()
    decoders = pool(decoder, 4)
    for n in range(4):  # 40 MB each of 64
        decoders.start([bytes([n]) + b"large wait"], rows(1), over)
    assert decoder.entered.acquire(timeout=WAIT)
    decoders.start([b"\x99"], rows(1), over)
    over.wait()
    assert len(decoder.seen) == 2, "one large image, and the small one"
    decoder.gate.set()
    for _ in range(4):
        over.wait()
    decoders.stop()


def test_an_abandoned_image_leaves_its_place_to_the_next() -> None:
    decoder, over = Decoder(), Over()
    decoders = pool(decoder, 1)
    decoders.start([b"\1large wait"], rows(1), over)
    assert decoder.entered.acquire(timeout=WAIT)
    waiting = [decoders.start([b"\2large"], rows(1), over) for _ in range(50)]
    for decoding in waiting:  # one whose header is just being read ends a moment later
        decoding.abandon(lambda: None)
    decoders.start([b"\3large"], rows(1), over)
    decoder.gate.set()
    over.wait()
    over.wait()
    assert decoder.seen == [1, 3]
    decoders.stop()


def rows(count: int) -> np.ndarray:
    return np.empty((count, 1, 1, 3), np.uint8)
