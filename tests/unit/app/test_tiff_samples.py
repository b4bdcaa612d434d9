"""TIFF files of every kind of sample: the picture that was stored, or a refusal that says what is read."""

from __future__ import annotations

import itertools
import struct
import zlib

import numpy as np
import pytest

from tessera.app.errors import UnsupportedImageError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.preprocessing.transform import Preprocessing

# The crop is as large as the resized picture, so pixels can be compared with those that were stored.
SIZE = 64
DECODER = ImageDecoder(Preprocessing(SIZE, SIZE), max_pixels=1 << 20)
WIDTH = SIZE + 1  # odd, so that rows of less than 8 bits end within a byte; one column is lost to the crop
ORDERS = {"<": b"II*\0", ">": b"MM\0*"}
RAW, DEFLATE = 1, 8


def packed(rows: np.ndarray, bits: int, order: str) -> bytes:
    """Samples side by side, each row from a whole byte on."""
    if bits in (8, 16, 32):
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    place = np.arange(bits - 1, -1, -1)
    return np.packbits((rows[..., None] >> place & 1).reshape(len(rows), -1), axis=1).tobytes()


def tiff(
    samples: np.ndarray,
    bits: int,
    order: str,
    *,
    photometric: int,
    planes: bool = False,
    sample_format: int | None = None,
    compression: int = RAW,
    extra: bool = False,
    palette: np.ndarray | None = None,
) -> bytes:
    """A TIFF file around samples [height, width, samples], in strips of 16 rows."""
    height, width, count = samples.shape
    parts = np.moveaxis(samples, 2, 0) if planes else samples.reshape(1, height, width * count)
    strips = [packed(part[top : top + 16], bits, order) for part in parts for top in range(0, height, 16)]
    strips = [zlib.compress(strip) if compression == DEFLATE else strip for strip in strips]
    starts = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    tags = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * count), (259, 3, [compression])]
    tags += [(262, 3, [photometric]), (273, 4, starts), (277, 3, [count]), (278, 4, [16])]
    tags += [(279, 4, list(map(len, strips))), (284, 3, [2 if planes else 1])]
    tags += [(320, 3, palette.tolist())] if palette is not None else []
    tags += [(338, 3, [2])] if extra else []
    tags += [(339, 3, [sample_format] * count)] if sample_format is not None else []
    body = b"".join(strips)
    directory = 8 + len(body)
    outside = directory + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag, kind, values in tags:
        content = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values))
        entries += content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(f"{order}I", outside + len(tail))
        tail += content if len(content) > 4 else b""
    head = ORDERS[order] + struct.pack(f"{order}I", directory)
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + tail


def decode(data: bytes) -> np.ndarray:
    row = np.zeros(DECODER.shape, np.uint8)
    DECODER.decode(data, row)
    return row.astype(int)


def ramp(bits: int) -> np.ndarray:
    """[SIZE, WIDTH]: dark to bright, with the whole range of `bits`."""
    return np.broadcast_to(np.round(np.linspace(0, 2**bits - 1, WIDTH)).astype(np.int64), (SIZE, WIDTH))


def close(pixels: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether they are the same but for rounding; `wanted` is [SIZE, WIDTH, 1 or 3] in 0..1."""
    return bool(np.abs(pixels - 255 * wanted[:, : pixels.shape[1]]).max() < 2)


COMBINATIONS = list(itertools.product(ORDERS, (RAW, DEFLATE)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grey_of_every_depth_is_as_bright_as_it_was_stored(bits: int, white_is_zero: bool) -> None:
    grey, top = ramp(bits)[..., None], 2**bits - 1
    for order, compression in COMBINATIONS:
        stored = top - grey if white_is_zero else grey
        data = tiff(stored, bits, order, photometric=int(not white_is_zero), compression=compression)
        assert close(decode(data), grey / top), (order, compression)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_colour_is_read_pixel_by_pixel_and_plane_by_plane(bits: int, planes: bool, alpha: bool) -> None:
    top = 2**bits - 1
    colour = np.stack([ramp(bits), top - ramp(bits), ramp(bits) // 2], axis=-1)
    samples = np.concatenate([colour, np.full((SIZE, WIDTH, 1), top // 3)], axis=-1) if alpha else colour
    for order, compression in COMBINATIONS:
        data = tiff(samples, bits, order, photometric=2, planes=planes, compression=compression, extra=alpha)
        assert close(decode(data), colour / top), (order, compression)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planes", [False, True])
def test_inks_are_the_colours_that_they_take_away(bits: int, planes: bool) -> None:
    top = 2**bits - 1
    inks = np.stack([ramp(bits), top - ramp(bits), ramp(bits) // 2, ramp(bits) * 0], axis=-1)
    for order, compression in COMBINATIONS:
        data = tiff(inks, bits, order, photometric=5, planes=planes, compression=compression)
        assert close(decode(data), 1 - inks[..., :3] / top), (order, compression)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("planes", [False, True])
def test_palettes_of_every_depth_show_their_colours(bits: int, planes: bool) -> None:
    colours = np.stack([np.linspace(0, 1, 2**bits), np.linspace(1, 0, 2**bits), np.linspace(0, 0.5, 2**bits)])
    palette = np.round(colours * 65535).astype(int).reshape(-1)
    for order, compression in COMBINATIONS:
        data = tiff(
            ramp(bits)[..., None], bits, order, photometric=3, planes=planes, compression=compression, palette=palette
        )
        assert close(decode(data), colours.T[ramp(bits)]), (order, compression)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize(("sample_format", "word"), [(2, "signed"), (3, "floating-point"), (4, "unknown")])
def test_samples_that_are_no_unsigned_integers_are_refused_by_name(bits: int, sample_format: int, word: str) -> None:
    for order, compression in COMBINATIONS:
        data = tiff(
            ramp(8)[..., None], bits, order, photometric=1, sample_format=sample_format, compression=compression
        )
        with pytest.raises(UnsupportedImageError, match=r"TIFF is read with unsigned samples") as refusal:
            decode(data)
        assert word in refusal.value.message or "not supported" in refusal.value.message


@pytest.mark.parametrize(("bits", "photometric", "samples"), [(32, 1, 1), (12, 2, 3), (4, 2, 3), (16, 1, 2)])
def test_what_no_decoder_reads_is_refused_with_what_is_read(bits: int, photometric: int, samples: int) -> None:
    for order, compression in COMBINATIONS:
        stored = np.repeat(ramp(4)[..., None], samples, axis=2)
        data = tiff(stored, bits, order, photometric=photometric, compression=compression)
        with pytest.raises(UnsupportedImageError, match=r"TIFF is read with|8-bit or 16-bit"):
            decode(data)
