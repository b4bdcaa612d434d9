"""gzip and deflate bodies, bounded: what a small body unpacks to is counted while it unpacks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tessera.app.errors import BodyTooLargeError, InvalidInferenceRequestError, UnsupportedEncodingError, quoted
from tessera.wording import counted

ENCODINGS = ("gzip", "deflate")

# zlib's window argument: 15 bits, plus 16 for the gzip wrapper; HTTP's deflate is the zlib wrapper (RFC 9110, 8.4.1.2).
_WINDOW = {"gzip": 31, "deflate": 15}

_WORTHWHILE = 1024  # bytes; smaller answers fit one packet either way
_PIECE = 1024 * 1024  # bytes unpacked at once
_READ = 64 * 1024  # bytes of a packed body looked at together: zlib copies what it has not used of them
_MOST_PREFERENCES = 1024  # characters of an Accept-Encoding that are read


def unpacked(body: bytes, encoding: str, *, limit: int) -> Iterator[bytes]:
    """Undo the Content-Encoding of a body, piece by piece.

    Args:
        body: As received.
        encoding: The header's value.
        limit: Most bytes that it may unpack to; unpacking stops there.

    Yields:
        What it unpacks to, in pieces of a megabyte at most, none of them empty.

    Raises:
        UnsupportedEncodingError: Another encoding than gzip, deflate or identity.
        BodyTooLargeError: Over the limit.
        InvalidInferenceRequestError: The data is damaged, cut short or followed by something else.
    """
    name = encoding.strip().lower()
    if name not in _WINDOW:
        raise UnsupportedEncodingError(
            f"Content-Encoding {quoted(name, 40)} is not supported; use {' or '.join(ENCODINGS)}.",
            accept_encoding=", ".join(ENCODINGS),
        )
    unpacker = zlib.decompressobj(_WINDOW[name])
    total = at = 0
    left = piece = b""
    # A full piece may have left something behind in the unpacker, which then needs no further bytes.
    while not unpacker.eof and (left or at < len(body) or len(piece) == _PIECE):
        if not left:
            left = body[at : at + _READ]
            at += _READ
        try:
            piece = unpacker.decompress(left, _PIECE)
        except zlib.error as error:
            raise InvalidInferenceRequestError(f"The body is not valid {name} data: {error}.") from None
        left = unpacker.unconsumed_tail
        total += len(piece)
        if total > limit:
            raise BodyTooLargeError(f"The body unpacks to more than the limit of {counted(limit, 'byte')}.")
        if piece:
            yield piece
    if not unpacker.eof or unpacker.unused_data or at < len(body):
        raise InvalidInferenceRequestError(f"The body's {name} data is cut short, or followed by something else.")


def is_packed(encoding: str | None) -> bool:
    """Whether a body with that Content-Encoding is to be unpacked."""
    return encoding is not None and encoding.strip().lower() not in ("", "identity")


def choose_encoding(accept_encoding: str | None, size: int) -> str | None:
    """Pick how to compress an answer of `size` bytes: what the client prefers of what we have; None for not at all."""
    if accept_encoding is None or size < _WORTHWHILE:
        return None
    weights = dict(_weighted(part) for part in accept_encoding[:_MOST_PREFERENCES].lower().split(","))
    wanted = [name for name in ENCODINGS if weights.get(name, weights.get("*", 0.0)) > 0]
    return max(wanted, key=lambda name: weights.get(name, weights.get("*", 0.0)), default=None)


def compress(body: bytes, encoding: str) -> bytes:
    """Compress a body as one of `ENCODINGS`, quickly rather than tightly."""
    packer = zlib.compressobj(level=1, wbits=_WINDOW[encoding])
    return packer.compress(body) + packer.flush()


def _weighted(part: str) -> tuple[str, float]:
    name, _, parameter = part.partition(";")
    key, _, value = parameter.strip().partition("=")
    if key.strip() != "q":
        return name.strip(), 1.0
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), 0.0
