"""PyTorch checkpoints (`.pth`, `.pt`) without PyTorch: the tensors of a state dict, and nothing executed."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera.engine.errors import ModelError
from tessera.models.formats.pickles import LARGEST_PICKLE, StoredTensor, read_pickle
from tessera.models.formats.state_dict import is_counter

# How often the names under which training code keeps its weights; averaged weights first, as they are meant for use.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net", "weights")
_DEEPEST = 4
_TYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "DoubleStorage": np.dtype(np.float64),
    "BFloat16Storage": np.dtype(np.uint16),
}
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_SAVE_AGAIN = "Save it again with PyTorch 1.6 or newer: torch.save(model.state_dict(), PATH)"
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, struct.error, OSError, EOFError),
    *(ValueError, RuntimeError, KeyError, OverflowError, MemoryError),
)


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """Read the state dict of a checkpoint, also from inside a training checkpoint; counters are left out.

    No more memory is used than the file has bytes, twice that for bfloat16.

    Returns:
        float16, float32 or float64 arrays by key; bfloat16 comes as float32.

    Raises:
        ModelError: the file is missing, damaged, of the format before PyTorch 1.6, or holds no state dict.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_LEGACY)) == _LEGACY:
                raise ModelError(f"{path} has the format of PyTorch before 1.6. {_SAVE_AGAIN}.")
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, path.stat().st_size).state_dict()
    except ModelError as error:
        raise error if str(path) in str(error) else ModelError(f"{path} cannot be used: {error}.") from error
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}.") from error
    except _ZIP_ERRORS as error:
        raise ModelError(f"{path} is not a PyTorch checkpoint, or it is damaged: {error}. Copy it again.") from error


class _Archive:
    """The zip file that `torch.save` writes: `data.pkl`, and a record of raw numbers for every storage."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._size = size
        names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ModelError("it holds no data.pkl as torch.save writes it")
        self._root = names[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in archive.NameToInfo:
            raise ModelError(f"it is a TorchScript program, not a state dict. {_SAVE_AGAIN}")

    def state_dict(self) -> dict[str, NDArray[Any]]:
        tensors = _find_state(read_pickle(self._record("data.pkl", LARGEST_PICKLE)))
        says_order = f"{self._root}byteorder" in self._archive.NameToInfo
        is_big = says_order and self._record("byteorder", 16) == b"big"
        total = sum(_check_bounds(key, tensor) for key, tensor in tensors.items())
        groups = _by_storage(tensors)
        kept = [tensors[keys[0]].storage for keys in groups.values()]
        total = max(total, sum(storage.count * _TYPES[storage.kind].itemsize for storage in kept))
        if total > self._size:
            raise ModelError(f"its tensors claim {total} bytes, more than the file has")
        state: dict[str, NDArray[Any]] = {}
        for storage, keys in groups.items():
            values = self._storage(storage, tensors[keys[0]], is_big)
            state.update((key, _view(values, tensors[key])) for key in keys)
        return {key: state[key] for key in tensors}

    def _storage(self, name: str, tensor: StoredTensor, is_big: bool) -> NDArray[Any]:
        dtype = _TYPES[tensor.storage.kind]
        wanted = tensor.storage.count * dtype.itemsize
        data = self._record(f"data/{name}", self._size)
        if len(data) != wanted:
            raise ModelError(f"its record data/{name} has {len(data)} bytes instead of {wanted}")
        values = np.frombuffer(data, dtype.newbyteorder(">" if is_big else "<")).astype(dtype, copy=False)
        if tensor.storage.kind == "BFloat16Storage":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def _record(self, name: str, most: int) -> bytes:
        info = self._archive.NameToInfo.get(self._root + name)
        if info is None:
            raise ModelError(f"its record {name} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
            raise ModelError(f"its record {name} is compressed, which torch.save never does")
        if info.file_size > most:
            raise ModelError(f"its record {name} has {info.file_size} bytes; at most {most} are read")
        return self._archive.read(info)


def _find_state(value: Any) -> dict[str, StoredTensor]:
    for _ in range(_DEEPEST):
        if not isinstance(value, dict):
            break
        tensors = {
            key: tensor for key, tensor in value.items() if isinstance(tensor, StoredTensor) and not is_counter(key)
        }
        if tensors:
            return tensors
        value = next((value[name] for name in _WRAPPERS if isinstance(value.get(name), dict)), None)
    raise ModelError(f"it holds no state dict, nor one under {', '.join(_WRAPPERS)}. {_SAVE_AGAIN}")


def _check_bounds(key: str, tensor: StoredTensor) -> int:
    """Bytes of a tensor, once it is certain that it lies within what its storage claims to hold."""
    shape, strides, storage = tensor.shape, tensor.strides, tensor.storage
    dtype = _TYPES.get(storage.kind)
    if dtype is None:
        raise ModelError(f"'{key}' is kept as {storage.kind}; float16, bfloat16, float32 and float64 are read")
    fits = len(shape) == len(strides) <= 8 and min((tensor.offset, *strides), default=0) >= 0
    fits = fits and all(size > 0 for size in shape)
    if not fits or tensor.offset + _last(shape, strides) >= storage.count or prod(shape) > storage.count:
        raise ModelError(f"'{key}' of shape {list(shape)[:8]} does not lie within its storage")
    return prod(shape) * dtype.itemsize


def _last(shape: Iterable[int], strides: Iterable[int]) -> int:
    return sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _by_storage(tensors: Mapping[str, StoredTensor]) -> dict[str, list[str]]:
    """Keys of the tensors in each storage, so that each record is read once."""
    groups: dict[str, list[str]] = {}
    for key, tensor in tensors.items():
        keys = groups.setdefault(tensor.storage.key, [])
        if keys and tensors[keys[0]].storage != tensor.storage:
            raise ModelError(f"'{key}' describes its storage in another way than '{keys[0]}' beside it")
        keys.append(key)
    return groups


def _view(values: NDArray[Any], tensor: StoredTensor) -> NDArray[Any]:
    # The stride of a dimension of one element means nothing, and may be any number.
    steps = zip(tensor.shape, tensor.strides, strict=True)
    strides = [stride * values.itemsize if size > 1 else 0 for size, stride in steps]
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view)
