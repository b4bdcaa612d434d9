"""Weight files: safetensors in, a state dict of numpy arrays out; and the hash that names their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tessera.engine.errors import ModelError

_READABLE = ("F16", "F32", "F64")
_BLOCK = 1 << 20


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read all tensors of a safetensors file, by key.

    Raises:
        ModelError: the file is missing, damaged, or holds a type that is not float16, float32 or float64.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            keys = sorted(file.keys())
            for key in keys:
                stored = file.get_slice(key).get_dtype()
                # Training frameworks keep step counters as integers; they are read like any other tensor.
                if stored not in _READABLE and not key.endswith("num_batches_tracked"):
                    raise ModelError(f"'{key}' in {path} is stored as {stored}. Store weights as F16 or F32.")
            return {key: file.get_tensor(key) for key in keys}
    except OSError as error:
        raise ModelError(f"Cannot read the weights {path}: {error}.") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file, or it is damaged: {error}. Copy it again.") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        ModelError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
    return digest.hexdigest()
