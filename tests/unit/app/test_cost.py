"""Files that would cost far more to decode than their bytes and pixels say are refused before anything is spent."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tessera.app.errors import ImageTooLargeError, RequestError
from tessera.app.imaging.cost import BoundedReader, count_scans
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.preprocessing.transform import Preprocessing

MAX_PIXELS = 1_000_000
DECODER = ImageDecoder(Preprocessing(), max_pixels=MAX_PIXELS)
PIECES = 400_000


def encode(kind: str, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    row = np.empty(DECODER.shape, np.uint8)
    DECODER.decode(data, row)
    return row


def scans_of(data: bytes) -> list[bytes]:
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data) - 2], strict=True)]


def with_more_scans(data: bytes, count: int) -> bytes:
    """The same picture with its last scan (a refinement, nearly empty) repeated `count` times."""
    return data[:-2] + scans_of(data)[-1] * count + data[-2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def files_in_pieces() -> Iterator[tuple[str, bytes]]:
    """Small pictures between hundreds of thousands of empty segments, chunks and blocks."""
    jpeg, png, gif, tiff = encode("JPEG"), encode("PNG"), encode("GIF"), encode("TIFF")
    yield "jpeg segments", jpeg[:2] + b"\xff\xe5\x00\x02" * PIECES + jpeg[2:]
    yield "jpeg comments", jpeg[:2] + b"\xff\xfe\x00\x02" * PIECES + jpeg[2:]
    yield "jpeg fill", jpeg[:2] + b"\xff" * PIECES * 4 + jpeg[2:]
    yield "png chunks", png[:33] + chunk(b"teST", b"") * PIECES + png[33:]
    yield "png texts", png[:33] + chunk(b"tEXt", b"a\0b") * PIECES + png[33:]
    yield "png data", png[:33] + chunk(b"IDAT", b"") * PIECES + png[33:]
    at = gif.index(b"\x2c")
    yield "gif comments", gif[:at] + b"\x21\xfe\x01a\x00" * PIECES + gif[at:]
    yield "gif blocks", gif[:at] + b"\x21\xfe" + b"\x01a" * PIECES + b"\0" + gif[at:]
    yield "gif fill", gif[:at] + b"\0" * PIECES * 4 + gif[at:]
    entries = b"".join(struct.pack("<HHII", 40_000, 4, 1, 1) for _ in range(65_535))
    yield "tiff entries", tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + struct.pack("<H", 65_535) + entries


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in files_in_pieces()])
def test_a_file_in_countless_pieces_is_refused(data: bytes) -> None:
    with pytest.raises(ImageTooLargeError, match="small pieces"):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_ordinary_files_stay_far_below_the_bound(kind: str) -> None:
    class Counting(BoundedReader):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            return super().read(size)

    reader = Counting(encode(kind, (900, 700)))
    Image.open(reader).load()
    assert 0 < reader.reads < 1000


def test_scans_are_counted_as_they_are() -> None:
    assert count_scans(encode("JPEG"), 100) == 1
    progressive = encode("JPEG", progressive=True)
    assert count_scans(progressive, 100) == len(scans_of(progressive)) > 5
    assert count_scans(with_more_scans(progressive, 30), 100) == len(scans_of(progressive)) + 30
    assert count_scans(with_more_scans(progressive, 3000), 100) > 100


def test_a_sequential_jpeg_counts_its_scans_where_a_decoder_runs_them() -> None:
    whole = encode("JPEG")
    assert count_scans(with_more_scans(whole, 500), 100) == 1, "the first scan has everything, the others are not run"
    frame = whole.index(b"\xff\xc0")
    for damaged in (whole[: frame + 3], whole[:frame] + b"\xff\xc0\x00", whole[: whole.index(b"\xff\xda") + 3]):
        assert count_scans(damaged, 100) <= 1
    # One component per scan, as the specification allows: then every scan is a pass.
    at = whole.index(b"\xff\xda")
    apart = whole[:at] + (b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x2a" * 9) * 50 + b"\xff\xd9"
    assert count_scans(apart, 100) == 50


def test_what_lies_inside_a_segment_is_no_scan() -> None:
    thumbnail = with_more_scans(encode("JPEG", progressive=True), 200)
    jpeg = encode("JPEG", exif=b"Exif\0\0" + thumbnail)
    assert jpeg.count(b"\xff\xda") > 200
    assert count_scans(jpeg, 100) == 1


def test_a_progressive_jpeg_may_cost_sixteen_passes_over_the_pixel_limit() -> None:
    progressive = encode("JPEG", (1000, 1000), progressive=True)
    own = len(scans_of(progressive))
    assert decode(with_more_scans(progressive, 16 - own)).std() > 1
    with pytest.raises(ImageTooLargeError, match="more than 16 scans of 1000 x 1000"):
        decode(with_more_scans(progressive, 17 - own))
    with pytest.raises(ImageTooLargeError, match="scans"):
        decode(with_more_scans(progressive, 100_000))
    small = encode("JPEG", (100, 100), progressive=True)
    assert decode(with_more_scans(small, 500)).shape == DECODER.shape


def tiff_around(jpeg: bytes, size: tuple[int, int], strips: int = 1) -> bytes:
    """A TIFF whose every strip is the same JPEG stream."""
    width, height = size
    tags = [(256, 4, [width]), (257, 4, [height]), (258, 3, [8, 8, 8]), (259, 3, [7]), (262, 3, [6])]
    tags += [(273, 4, [8] * strips), (277, 3, [3]), (278, 4, [height // strips]), (279, 4, [len(jpeg)] * strips)]
    padded = jpeg + b"\0" * (len(jpeg) % 2)
    directory = 8 + len(padded)
    outside = directory + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, kind, len(values), outside + len(tail))
            tail += packed
        else:
            entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", directory) + padded + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + tail


def test_a_jpeg_inside_a_tiff_is_bounded_too() -> None:
    size = (1000, 1000)
    baseline, progressive = encode("JPEG", size), encode("JPEG", size, progressive=True)
    assert decode(tiff_around(baseline, size)).shape == DECODER.shape
    with pytest.raises(ImageTooLargeError, match="scans"):
        decode(tiff_around(with_more_scans(progressive, 60), size))
    with pytest.raises(RequestError, match="overlap"):
        decode(tiff_around(encode("JPEG", (1000, 500)), size, strips=2))


MEASURED = """
import resource, sys, numpy as np
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.preprocessing.transform import Preprocessing
decoder = ImageDecoder(Preprocessing(), max_pixels=1 << 26, decode_scale=sys.argv[3] == "True")
row = np.zeros(decoder.shape, np.uint8)
decoder.decode(open(sys.argv[1], "rb").read(), row)
data = open(sys.argv[2], "rb").read()
opened = decoder.open(data)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = resident()
open("/proc/self/clear_refs", "w").write("5")
opened.decode(row)
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak - before, opened.cost.size)
"""

SIZE = (3000, 2000)
COSTLY: dict[str, dict[str, object]] = {
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "JPEG progressive, whole colours": {"progressive": True, "subsampling": 0},
    "JPEG turned": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
    "PNG": {},
    "WEBP": {"lossless": True, "method": 0},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "TIFF in one strip": {"compression": "tiff_lzw", "tiffinfo": {278: SIZE[1]}},
}


MODES = {
    "JPEG": ["L", "RGB", "CMYK"],
    "PNG": ["L", "P", "RGB", "RGBA", "I;16"],
    "WEBP": ["L", "P", "RGB", "RGBA", "CMYK", "I;16"],
    "GIF": ["L", "P", "RGB", "RGBA", "I;16"],
    "BMP": ["L", "P", "RGB", "RGBA"],
    "TIFF": ["L", "P", "RGB", "RGBA", "CMYK", "I;16"],
}


@pytest.mark.parametrize(
    ("kind", "mode", "decode_scale"),
    [
        (kind, mode, decode_scale)
        for kind in COSTLY
        for mode in MODES[kind.split()[0]]
        for decode_scale in ((True, False) if kind.startswith("JPEG") else (True,))
    ],
)
def test_what_a_decode_will_hold_is_known_before_it_begins(
    kind: str, mode: str, decode_scale: bool, tmp_path: Path
) -> None:
    picture = Image.linear_gradient("L").resize(SIZE).convert("RGB" if mode != "I;16" else "I;16")
    small, large = tmp_path / "small", tmp_path / "large"
    picture.resize((30, 20)).convert(mode).save(small, kind.split()[0], **COSTLY[kind])
    picture.convert(mode).save(large, kind.split()[0], **COSTLY[kind])
    measure = [sys.executable, "-c", MEASURED, str(small), str(large), str(decode_scale)]
    held, expected = map(int, subprocess.check_output(measure, text=True).split())
    pixels = SIZE[0] * SIZE[1]
    assert held < expected + 0.3 * pixels, f"{held / pixels:.1f} bytes a pixel, {expected / pixels:.1f} were expected"
    assert held > expected / 3 - 4 * pixels
