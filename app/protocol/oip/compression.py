"""gzip and deflate bodies, bounded: what a small body unpacks to is counted while it unpacks."""

from __future__ import annotations

import zlib

from app.errors import BodyTooLargeError, InvalidInferenceRequestError, UnsupportedEncodingError

ENCODINGS = ("gzip", "deflate")

# zlib's window argument: 15 bits, plus 16 for the gzip wrapper; HTTP's deflate is the zlib wrapper (RFC 9110, 8.4.1.2).
_WINDOW = {"gzip": 31, "deflate": 15}

_WORTHWHILE = 1024  # bytes; smaller answers fit one packet either way


def decompress(body: bytes, encoding: str | None, *, limit: int) -> bytes:
    """Undo the Content-Encoding of a body.

    Args:
        body: As received.
        encoding: The header's value, or None.
        limit: Most bytes that it may unpack to; unpacking stops there.

    Raises:
        UnsupportedEncodingError: Another encoding than gzip, deflate or identity.
        BodyTooLargeError: Over the limit.
        InvalidInferenceRequestError: The data is damaged, cut short or followed by something else.
    """
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return body
    if name not in _WINDOW:
        raise UnsupportedEncodingError(
            f"Content-Encoding {name[:40]!r} is not supported; use {' or '.join(ENCODINGS)}.",
            accept_encoding=", ".join(ENCODINGS),
        )
    unpacker = zlib.decompressobj(_WINDOW[name])
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInferenceRequestError(f"The body is not valid {name} data: {error}.") from None
    if len(unpacked) > limit:
        raise BodyTooLargeError(f"The body unpacks to more than the limit of {limit} bytes.")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInferenceRequestError(f"The body's {name} data is cut short, or followed by something else.")
    return unpacked


def choose_encoding(accept_encoding: str | None, size: int) -> str | None:
    """Pick how to compress an answer of `size` bytes: what the client prefers of what we have; None for not at all."""
    if accept_encoding is None or size < _WORTHWHILE:
        return None
    weights = dict(_weighted(part) for part in accept_encoding.lower().split(","))
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
