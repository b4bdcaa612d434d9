"""Checks of an .om file that need no device.

The header is 256 bytes (CANN's `ModelFileHeader`): "IMOD", its own size, version, a checksum of 64 bytes, and the size
of what follows: 32 bits at 76, and in later versions 64 bits at 184, which count when they are not 0. CANN refuses
files whose size does not agree, with an error that names no file; here it does.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tessera.engine.errors import ModelError

MAGIC = b"IMOD"
HEADER_BYTES = 256
_LENGTH_AT = 76
_LONG_LENGTH_AT = 184


def check_om_file(path: Path) -> None:
    """Check that a file is a whole .om file.

    Raises:
        ModelError: it is not; the message says what to do.
    """
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
    if header[:4] != MAGIC or len(header) < HEADER_BYTES:
        raise ModelError(
            f"{path} is no .om file: it does not begin with CANN's header. Backend 'ascend' runs what ATC makes; "
            "convert ONNX files with: tessera models convert --target Ascend310B1."
        )
    (header_bytes,) = struct.unpack_from("<I", header, 4)
    (length,) = struct.unpack_from("<I", header, _LENGTH_AT)
    (long_length,) = struct.unpack_from("<Q", header, _LONG_LENGTH_AT)
    expected = HEADER_BYTES + (long_length or length)
    if header_bytes != HEADER_BYTES:
        raise ModelError(f"{path} has a header of {header_bytes} bytes; .om files have {HEADER_BYTES}.")
    if size != expected:
        raise ModelError(f"{path} has {size} bytes, but its header says {expected}: copy or convert it again.")
