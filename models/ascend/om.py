"""What the header of an `.om` file says: enough to tell a whole file from a broken one without CANN."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError

MAGIC = b"IMOD"
HEADER_BYTES = 256

# GE's ModelFileHeader: magic, headsize and version at 0, length at 76, platform_version at 160, model_length at 184.
_LENGTH, _PLATFORM, _MODEL_LENGTH = 76, slice(160, 180), 184


@dataclass(frozen=True)
class OmHeader:
    """The header of an .om file.

    Attributes:
        version: version of the file format, as GE numbers it.
        body_bytes: length of what follows the header.
        platform: version of the platform that wrote it; may be empty.
    """

    version: int
    body_bytes: int
    platform: str


def read_om_header(path: Path) -> OmHeader:
    """Read and check the header; as GE does at load, header and body must make up the file.

    Raises:
        ModelError: the file cannot be read, is no .om file, or is cut short or too long.
    """
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
    if len(header) < HEADER_BYTES or header[:4] != MAGIC:
        raise ModelError(f"{path} is no .om file: it does not begin with {MAGIC.decode()} and a header.")
    head_bytes, version = struct.unpack_from("<II", header, 4)
    (short,) = struct.unpack_from("<I", header, _LENGTH)
    (long,) = struct.unpack_from("<Q", header, _MODEL_LENGTH)
    body = long or short  # older versions have only the 32-bit field
    if head_bytes != HEADER_BYTES or HEADER_BYTES + body != size:
        raise ModelError(
            f"{path} is damaged: its header tells of {head_bytes} + {body} bytes, the file has {size}. "
            "Convert the model again."
        )
    return OmHeader(version, body, header[_PLATFORM].rstrip(b"\0").decode("ascii", "replace"))
