"""The AscendCL functions that are called here, with their types: without them ctypes cuts pointers to 32 bits."""

from __future__ import annotations

from ctypes import POINTER, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any, Literal

from tessera.engine.backends.ascend.structures import Batch, IODims, UtilizationInfo

Part = Literal["runtime", "model", "profiling"]

STATUS = c_int
ENUM = c_int


@dataclass(frozen=True)
class Prototype:
    """One function.

    Attributes:
        name: its symbol.
        returns: ctypes type; `STATUS` for functions that return an aclError.
        arguments: ctypes types.
        part: which of CANN's libraries has it, where they are apart (8.5 and later).
        since: the first CANN version that has it; later than 6.0 means that it may be missing.
    """

    name: str
    returns: Any
    arguments: tuple[Any, ...]
    part: Part
    since: str = "6.0"

    @property
    def checked(self) -> bool:
        """Whether it returns an aclError."""
        return self.name not in _VALUES


def _part(part: Part, since: str = "6.0", **functions: tuple[Any, ...]) -> list[Prototype]:
    """Prototypes from name=(result, *arguments)."""
    return [Prototype(name, types[0], types[1:], part, since) for name, types in functions.items()]


_HANDLE = POINTER(c_void_p)

_RUNTIME = _part(
    "runtime",
    aclInit=(STATUS, c_char_p),
    aclGetRecentErrMsg=(c_char_p,),
    aclrtGetSocName=(c_char_p,),
    aclrtGetRunMode=(STATUS, POINTER(ENUM)),
    aclrtGetDeviceCount=(STATUS, POINTER(c_uint32)),
    aclrtSetDevice=(STATUS, c_int32),
    aclrtResetDevice=(STATUS, c_int32),
    aclrtCreateContext=(STATUS, _HANDLE, c_int32),
    aclrtDestroyContext=(STATUS, c_void_p),
    aclrtSetCurrentContext=(STATUS, c_void_p),
    aclrtCreateStream=(STATUS, _HANDLE),
    aclrtDestroyStream=(STATUS, c_void_p),
    aclrtSynchronizeStreamWithTimeout=(STATUS, c_void_p, c_int32),
    aclrtMalloc=(STATUS, _HANDLE, c_size_t, ENUM),
    aclrtFree=(STATUS, c_void_p),
    aclrtMallocHost=(STATUS, _HANDLE, c_size_t),
    aclrtFreeHost=(STATUS, c_void_p),
    aclrtMemcpyAsync=(STATUS, c_void_p, c_size_t, c_void_p, c_size_t, ENUM, c_void_p),
    aclrtGetMemInfo=(STATUS, ENUM, POINTER(c_size_t), POINTER(c_size_t)),
)

_MODEL = _part(
    "model",
    aclmdlQuerySize=(STATUS, c_char_p, POINTER(c_size_t), POINTER(c_size_t)),
    aclmdlLoadFromFile=(STATUS, c_char_p, POINTER(c_uint32)),
    aclmdlLoadFromFileWithMem=(STATUS, c_char_p, POINTER(c_uint32), c_void_p, c_size_t, c_void_p, c_size_t),
    aclmdlUnload=(STATUS, c_uint32),
    aclmdlCreateDesc=(c_void_p,),
    aclmdlDestroyDesc=(STATUS, c_void_p),
    aclmdlGetDesc=(STATUS, c_void_p, c_uint32),
    aclmdlGetNumInputs=(c_size_t, c_void_p),
    aclmdlGetNumOutputs=(c_size_t, c_void_p),
    aclmdlGetInputSizeByIndex=(c_size_t, c_void_p, c_size_t),
    aclmdlGetOutputSizeByIndex=(c_size_t, c_void_p, c_size_t),
    aclmdlGetInputDims=(STATUS, c_void_p, c_size_t, POINTER(IODims)),
    aclmdlGetOutputDims=(STATUS, c_void_p, c_size_t, POINTER(IODims)),
    aclmdlGetCurOutputDims=(STATUS, c_void_p, c_size_t, POINTER(IODims)),
    aclmdlGetInputDataType=(ENUM, c_void_p, c_size_t),
    aclmdlGetOutputDataType=(ENUM, c_void_p, c_size_t),
    aclmdlGetInputIndexByName=(STATUS, c_void_p, c_char_p, POINTER(c_size_t)),
    aclmdlGetDynamicBatch=(STATUS, c_void_p, POINTER(Batch)),
    aclmdlSetDynamicBatchSize=(STATUS, c_uint32, c_void_p, c_size_t, c_uint64),
    aclmdlExecuteAsync=(STATUS, c_uint32, c_void_p, c_void_p, c_void_p),
    aclCreateDataBuffer=(c_void_p, c_void_p, c_size_t),
    aclDestroyDataBuffer=(STATUS, c_void_p),
    aclmdlCreateDataset=(c_void_p,),
    aclmdlDestroyDataset=(STATUS, c_void_p),
    aclmdlAddDatasetBuffer=(STATUS, c_void_p, c_void_p),
)

_PROFILING = _part(
    "profiling",
    aclprofInit=(STATUS, c_char_p, c_size_t),
    aclprofCreateConfig=(c_void_p, POINTER(c_uint32), c_uint32, ENUM, c_void_p, c_uint64),
    aclprofStart=(STATUS, c_void_p),
    aclprofStop=(STATUS, c_void_p),
    aclprofDestroyConfig=(STATUS, c_void_p),
    aclprofFinalize=(STATUS,),
)

_LATER = [
    *_part("runtime", "7.0", aclrtDestroyStreamForce=(STATUS, c_void_p)),
    *_part("runtime", "7.0", aclrtGetDeviceUtilizationRate=(STATUS, c_int32, POINTER(UtilizationInfo))),
]

_VALUES = frozenset(
    {
        "aclGetRecentErrMsg",
        "aclrtGetSocName",
        "aclmdlCreateDesc",
        "aclmdlGetNumInputs",
        "aclmdlGetNumOutputs",
        "aclmdlGetInputSizeByIndex",
        "aclmdlGetOutputSizeByIndex",
        "aclmdlGetInputDataType",
        "aclmdlGetOutputDataType",
        "aclCreateDataBuffer",
        "aclmdlCreateDataset",
        "aclprofCreateConfig",
    }
)

PROTOTYPES: dict[str, Prototype] = {entry.name: entry for entry in [*_RUNTIME, *_MODEL, *_PROFILING, *_LATER]}
