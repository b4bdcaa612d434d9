"""Image files of every kind the service reads, made at test time from one drawn picture."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image


def drawing(width: int = 320, height: int = 240) -> Image.Image:
    """A picture with gradients, an edge and colour, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    red = x * 255 // max(width - 1, 1)
    green = y * 255 // max(height - 1, 1)
    blue = np.where((x < width // 3) & (y < height // 2), 230, 40)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(width: int = 320, height: int = 240) -> bytes:
    return encode(drawing(width, height), "JPEG", quality=92)


def png(width: int = 320, height: int = 240) -> bytes:
    return encode(drawing(width, height), "PNG")


def rotated_jpeg(orientation: int, width: int = 320, height: int = 240) -> bytes:
    """The drawing stored turned, with an EXIF tag that says how to turn it back."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = drawing(width, height)
    picture = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture, "JPEG", quality=100, subsampling=0, exif=exif)


def sixteen_bit() -> np.ndarray:
    """uint16 grey values over the whole range."""
    row = np.linspace(0, 65535, 256).astype(np.uint16)
    return np.broadcast_to(row, (256, 256)).copy()


def animation(kind: str) -> bytes:
    second = Image.new("RGB", (320, 240), (255, 255, 255))
    return encode(drawing(), kind, save_all=True, append_images=[second], duration=100)


def palette_with_transparency() -> bytes:
    """A palette PNG whose transparency is a table of bytes, one per colour."""
    return encode(drawing().quantize(64), "PNG", transparency=bytes(range(0, 256, 4)))


def multi_picture() -> bytes:
    """An MPO file, as cameras write: a JPEG with a second picture behind it."""
    return encode(drawing(), "MPO", save_all=True, append_images=[drawing(160, 120)])


def bitmap_declaring(width: int, height: int) -> bytes:
    """A BMP whose header declares any size and whose pixels are missing."""
    header = bytearray(encode(Image.new("RGB", (1, 1)), "BMP"))
    header[18:22] = width.to_bytes(4, "little")
    header[22:26] = height.to_bytes(4, "little")
    return bytes(header)


def png_declaring(width: int, height: int) -> bytes:
    """A PNG whose header declares any size, its checksum right, and whose pixels are those of a tiny one."""
    import zlib

    data = bytearray(encode(Image.new("RGB", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


# Name -> file. Each shows the same drawing as far as its kind can.
KINDS: dict[str, Callable[[], bytes]] = {
    "jpeg": jpeg,
    "jpeg progressive": lambda: encode(drawing(), "JPEG", progressive=True),
    "jpeg grey": lambda: encode(drawing().convert("L"), "JPEG"),
    "jpeg cmyk": lambda: encode(drawing().convert("CMYK"), "JPEG"),
    "jpeg rotated": lambda: rotated_jpeg(6),
    "jpeg multi-picture": multi_picture,
    "png": png,
    "png grey": lambda: encode(drawing().convert("L"), "PNG"),
    "png grey alpha": lambda: encode(drawing().convert("LA"), "PNG"),
    "png palette": lambda: encode(drawing().quantize(64), "PNG"),
    "png palette transparent": palette_with_transparency,
    "png rgba": lambda: encode(drawing().convert("RGBA"), "PNG"),
    "png bilevel": lambda: encode(drawing().convert("1"), "PNG"),
    "png 16-bit": lambda: encode(Image.fromarray(sixteen_bit()), "PNG"),
    "webp": lambda: encode(drawing(), "WEBP"),
    "webp lossless rgba": lambda: encode(drawing().convert("RGBA"), "WEBP", lossless=True),
    "webp animated": lambda: animation("WEBP"),
    "gif": lambda: encode(drawing(), "GIF"),
    "gif animated": lambda: animation("GIF"),
    "bmp": lambda: encode(drawing(), "BMP"),
    "bmp palette": lambda: encode(drawing().quantize(64), "BMP"),
    "tiff": lambda: encode(drawing(), "TIFF"),
    "tiff lzw": lambda: encode(drawing(), "TIFF", compression="tiff_lzw"),
    "tiff cmyk": lambda: encode(drawing().convert("CMYK"), "TIFF"),
    "tiff 16-bit": lambda: encode(Image.fromarray(sixteen_bit()), "TIFF"),
    "tiff two pages": lambda: animation("TIFF"),
}
