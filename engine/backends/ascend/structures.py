"""Structures that the caller lays out, with the sizes of CANN's headers (LP64)."""

from __future__ import annotations

import ctypes

from tessera.engine.backends.ascend.constants import MAX_DIMENSIONS, MAX_GEARS, MAX_NAME


class IODims(ctypes.Structure):
    """`aclmdlIODims`, 1160 bytes: name and dimensions of an input or output; N is -1 where there are gears."""

    _fields_ = (
        ("name", ctypes.c_char * MAX_NAME),
        ("count", ctypes.c_size_t),
        ("sizes", ctypes.c_int64 * MAX_DIMENSIONS),
    )

    def shape(self) -> tuple[int, ...]:
        """The dimensions that are there."""
        return tuple(self.sizes[: self.count])


class Batch(ctypes.Structure):
    """`aclmdlBatch`, 1032 bytes: the gears; a count of 0 means a fixed batch."""

    _fields_ = (("count", ctypes.c_size_t), ("sizes", ctypes.c_uint64 * MAX_GEARS))


class UtilizationInfo(ctypes.Structure):
    """`aclrtUtilizationInfo`, 24 bytes: per cent of each unit, -1 where not known. `extend` must be null."""

    _fields_ = (
        ("cube", ctypes.c_int32),
        ("vector", ctypes.c_int32),
        ("aicpu", ctypes.c_int32),
        ("memory", ctypes.c_int32),
        ("extend", ctypes.c_void_p),
    )
