"""Compressed bodies of the Open Inference Protocol, both ways."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera.app.errors import BodyTooLargeError, InvalidInferenceRequestError, UnsupportedEncodingError
from tessera.app.oip.wire.compression import choose_encoding, compress, is_packed, unpacked
from tests.unit.app.refusals import check_refusal, refusal


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    return b"".join(unpacked(body, encoding, limit=limit))


@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_compressed_bodies_are_unpacked_up_to_the_limit(body: bytes, encoding: str) -> None:
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)
    assert decompress(packed, encoding, limit=len(body)) == body
    assert decompress(compress(body, encoding), encoding.upper(), limit=len(body)) == body
    if body:
        with pytest.raises(BodyTooLargeError):
            decompress(packed, encoding, limit=len(body) - 1)
    with pytest.raises(InvalidInferenceRequestError):
        decompress(packed[:-1], encoding, limit=len(body))
    with pytest.raises(InvalidInferenceRequestError):
        decompress(packed + b"x", encoding, limit=len(body))


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_bodies_of_about_a_piece_are_unpacked_whole(size: int) -> None:
    for body in (bytes(size), np.random.default_rng(1).bytes(size)):
        pieces = list(unpacked(gzip.compress(body), "gzip", limit=size))
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= 2**20


def test_a_body_as_it_is_needs_no_unpacking() -> None:
    assert not any(is_packed(encoding) for encoding in (None, "", "identity", " Identity "))
    assert is_packed("gzip")
    assert is_packed("br")


@settings(max_examples=50)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_unpacked_or_refused(body: bytes, encoding: str) -> None:
    check_refusal(refusal(decompress, body, encoding, limit=1000))


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(BodyTooLargeError, match="1000 bytes"):
        decompress(bomb, "deflate", limit=1000)


def test_other_encodings_are_unsupported_and_the_answer_says_which_are() -> None:
    with pytest.raises(UnsupportedEncodingError) as caught:
        decompress(b"", "br", limit=10)
    assert caught.value.headers() == {"Accept-Encoding": "gzip, deflate"}


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("gzip;q=0, *", "deflate"),
        ("gzip;q=x", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("GZIP", "gzip"),
    ],
)
def test_answers_are_compressed_as_the_client_asks(accepted: str | None, chosen: str | None) -> None:
    assert choose_encoding(accepted, 4096) == chosen
    assert choose_encoding(accepted, 100) is None
