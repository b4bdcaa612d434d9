"""What a file says beside its pixels costs in proportion to its bytes, and never hides the picture."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tessera.app.errors import ImageTooLargeError, RequestError
from tessera.app.imaging.cost import BoundedReader
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.imaging.metadata import prepare
from tessera.models.preprocessing.transform import Preprocessing
from tests.imagefiles import drawing, encode

DECODER = ImageDecoder(Preprocessing(), max_pixels=1 << 20)
PICTURE = drawing(64, 48)


def decode(data: bytes) -> np.ndarray:
    row = np.zeros(DECODER.shape, np.uint8)
    DECODER.decode(data, row)
    return row


def segment(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content


def jpeg_with(*segments: bytes) -> bytes:
    whole = encode(PICTURE, "JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes) -> bytes:
    whole = encode(PICTURE, "PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def exif(orientation: int) -> bytes:
    written = Image.Exif()
    written[0x0112] = orientation
    return written.tobytes()


def tiff_with(tag: int, kind: int, size: int, count: int) -> bytes:
    """A TIFF with one more tag, whose values lie behind everything else."""
    whole = bytearray(encode(PICTURE, "TIFF"))
    (directory,) = struct.unpack_from("<I", whole, 4)
    (entries,) = struct.unpack_from("<H", whole, directory)
    first, end = directory + 2, directory + 2 + 12 * entries
    kept = [bytes(whole[at : at + 12]) for at in range(first, end, 12)]
    kept = [entry for entry in kept if struct.unpack_from("<H", entry)[0] != tag]
    added = struct.pack("<HHII", tag, kind, count, len(whole))
    content = b"\x01\0\0\0" * (size * count // 4)
    moved = len(whole) + len(content)
    struct.pack_into("<I", whole, 4, moved)
    return bytes(whole) + content + struct.pack("<H", len(kept) + 1) + b"".join(sorted([*kept, added])) + b"\0" * 4


BOMBS: dict[str, Callable[[int], bytes]] = {
    "EXIF in many segments": lambda n: jpeg_with(*[segment(0xE1, b"Exif\0\0" + b"A" * 380)] * (n // 388)),
    "quantisation tables": lambda n: jpeg_with(*[segment(0xDB, (b"\x01" + b"\x10" * 64) * 900)] * (n // 58_504)),
    "frame headers": lambda n: jpeg_with(
        *[segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 3) + b"abc" * 20_000)] * (n // 60_010)
    ),
    "Photoshop's blocks": lambda n: jpeg_with(
        *[segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\0\0\0\0\0\0\0" * 5_400)] * (n // 64_818)
    ),
    "EXIF of a PNG": lambda n: png_with(chunk(b"eXIf", b"MM\0*" + b"A" * n)),
    "EXIF of a WebP": lambda n: encode(PICTURE, "WEBP", exif=b"Exif\0\0MM\0*" + b"A" * n),
    "resolutions of a TIFF": lambda n: tiff_with(282, 5, 8, n // 8),
    "strips of a TIFF": lambda n: tiff_with(273, 4, 4, n // 4),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_more_metadata_than_honest_files_have_is_refused_before_it_is_parsed(kind: str) -> None:
    """Each cost Pillow 0.1 us a byte, or more with every byte; steps are counted, in Python lines and calls."""
    with pytest.raises(RequestError) as refusal:
        decode(BOMBS[kind](4 << 20))
    assert refusal.value.status in (400, 413)
    assert steps(BOMBS[kind](4 << 20)) < 20_000


def steps(data: bytes) -> int:
    """Python function calls that refusing a file takes: what holds the GIL and grows with it."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        decode(data)
    except RequestError:
        pass
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt"])
def test_what_a_png_packs_beside_its_pixels_is_not_unpacked(name: bytes) -> None:
    """A kilobyte each becomes a megabyte; fifteen thousand of them kept a core busy for half a minute."""
    packed = zlib.compress(bytes(1_000_000))
    content = b"\0\1\0\0\0" + packed if name == b"iTXt" else b"a\0\0" + packed
    plain = decode(encode(PICTURE, "PNG"))
    whole = png_with(*[chunk(name, content)] * 300)
    assert np.array_equal(decode(whole), plain)
    assert prepare(whole) == encode(PICTURE, "PNG")


def test_a_profile_larger_than_pillow_would_unpack_does_not_refuse_the_picture() -> None:
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000)))
    assert np.array_equal(decode(png_with(profile)), decode(encode(PICTURE, "PNG")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_found_wherever_a_png_keeps_it(orientation: int) -> None:
    turned = decode(encode(PICTURE, "PNG", exif=exif(orientation)))
    plain = decode(encode(PICTURE, "PNG"))
    assert np.array_equal(turned, plain) == (orientation == 1)
    content = exif(orientation)
    dump = f"\nexif\n{len(content):8}\n{content.hex()}\n".encode()
    old = png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(dump)))
    assert np.array_equal(decode(old), turned)
    packet = f'<x tiff:Orientation="{orientation}"/>'.encode()
    described = png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    assert np.array_equal(decode(described), turned)
    whole = encode(PICTURE, "PNG")
    behind = whole[:-12] + chunk(b"eXIf", content.removeprefix(b"Exif\0\0")) + whole[-12:]
    assert np.array_equal(decode(behind), turned)


def test_honest_metadata_is_no_reason_to_refuse() -> None:
    profile = [segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 8]) + b"p" * 60_000) for part in range(1, 9)]
    thermal = [segment(0xE1, b"FLIR\0" + b"t" * 60_000)] * 40
    layers = segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\0\0\0\0\0\xea\x60" + b"l" * 60_000)
    photo = jpeg_with(segment(0xE1, b"Exif\0\0" + exif(1)[6:].ljust(60_000, b"\0")), *profile, *thermal, layers)
    assert np.array_equal(decode(photo), decode(encode(PICTURE, "JPEG")))


def test_a_file_that_points_at_the_same_bytes_again_and_again_is_refused() -> None:
    """Entries of EXIF that share 60 kB, and a reader that goes back: neither may cost more than the file's bytes."""
    reader = BoundedReader(bytes(10 << 20))
    for _ in range(4):
        reader.seek(0)
        reader.read()
    reader.seek(0)
    with pytest.raises(ImageTooLargeError, match="pieces"):
        reader.read()


def test_a_damaged_directory_of_a_tiff_is_told_and_not_looped_through() -> None:
    whole = encode(PICTURE, "TIFF")
    for at in range(4, len(whole) - 4, 7):
        damaged = whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :]
        with contextlib.suppress(RequestError):
            assert decode(damaged).shape == DECODER.shape


@pytest.mark.parametrize("place", [1 << 40, 1 << 63, (1 << 64) - 1])
def test_a_directory_of_a_big_tiff_may_be_at_no_place_of_any_memory(place: int) -> None:
    whole = bytearray(encode(PICTURE, "TIFF", big_tiff=True))
    struct.pack_into("<Q", whole, 8, place)
    with pytest.raises(RequestError, match="damaged"):
        decode(bytes(whole))


def test_a_jpeg_of_several_pictures_is_its_first() -> None:
    stream = io.BytesIO()
    PICTURE.save(stream, "MPO", save_all=True, append_images=[PICTURE.rotate(90)])
    assert np.array_equal(decode(stream.getvalue()), decode(encode(PICTURE, "JPEG")))
