"""Run-length encoded BMP files, unpacked in steps as large as their runs.

Pillow's own decoder reads byte by byte and fills rows pixel by pixel, holding the GIL: 60 ns for each pixel that a file
of some kilobytes declares, and two reads for each run.
"""

from __future__ import annotations

from PIL import Image, ImageFile

_PAIRS = [bytes([value >> 4, value & 15]) for value in range(256)]


class RunLengthDecoder(ImageFile.PyDecoder):
    """Pillow's `bmp_rle`: RLE8, or RLE4 where its second argument says so; one byte a pixel."""

    _pulls_fd = True

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:
        """Unpack the whole picture; see `ImageFile.PyDecoder.decode`."""
        assert self.fd is not None
        start = self.fd.tell()
        pixels = unpack(self.fd.read(), self.state.xsize, self.state.ysize, four_bits=bool(self.args[1]), start=start)
        self.set_as_raw(pixels, "L" if self.mode in ("1", "L") else "P", (0, self.args[-1]))
        return -1, 0


def unpack(data: bytes, width: int, height: int, *, four_bits: bool, start: int) -> bytes:
    """Unpack RLE8 or RLE4.

    Args:
        data: From the first run to the end of the file.
        width: Pixels of a row.
        height: Rows.
        four_bits: Whether it is RLE4.
        start: Where `data` begins in the file: literal pixels are padded to an even place in it.

    Returns:
        One byte a pixel, rows in the order of the file; less than all where the file ends early.
    """
    total = width * height
    pixels = bytearray(total)
    at = column = place = 0
    while at < total and place + 1 < len(data):
        count, value = data[place], data[place + 1]
        place += 2
        if count:
            count = min(count, max(0, width - column), total - at)
            pixels[at : at + count] = (_PAIRS[value] * 128)[:count] if four_bits else data[place - 1 : place] * count
            at += count
            column += count
        elif value == 0:  # end of the row
            at = -(-at // width) * width
            column = 0
        elif value == 1:  # end of the picture
            break
        elif value == 2:  # a step to the right and up
            if place + 1 >= len(data):
                break
            at = min(total, at + data[place] + data[place + 1] * width)
            column = at % width
            place += 2
        else:  # literal pixels
            count = min(value, total - at)
            size = (count + 1) // 2 if four_bits else count
            literal = data[place : place + size]
            if len(literal) < size:
                break
            pixels[at : at + count] = b"".join([_PAIRS[byte] for byte in literal])[:count] if four_bits else literal
            at += count
            column += value
            place += size
            place += (start + place) % 2
    return bytes(pixels if at >= total else pixels[:at])


Image.register_decoder("bmp_rle", RunLengthDecoder)
