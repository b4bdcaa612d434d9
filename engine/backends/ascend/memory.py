"""Memory of devices, and page-locked memory of the host."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from tessera.engine.backends.ascend.constants import MallocPolicy, MemcpyKind
from tessera.engine.backends.ascend.device import Device, Stream
from tessera.engine.backends.ascend.errors import AclError

Bytes = npt.NDArray[np.uint8]


class DeviceBuffer:
    """`size` bytes on a device; made and closed inside `device.active()`."""

    def __init__(self, device: Device, size: int) -> None:
        self._library = device.library
        address = ctypes.c_void_p()
        self._library.call("aclrtMalloc", address, size, MallocPolicy.HUGE_FIRST)
        self.address = address.value
        self.size = size

    def close(self) -> None:
        """Free it."""
        self._library.release("aclrtFree", self.address)


class StagedBuffer:
    """One tensor on both sides: host bytes that the CPU writes or reads, and the device memory that a model uses.

    The host side is page-locked, as only such memory is copied without the CPU. In RC mode host and device are one
    memory, so there is one buffer and nothing to copy; it comes from `aclrtMalloc`, which aligns it as models need.

    Args:
        device: where it lives.
        size: bytes.

    Attributes:
        host: uint8 [size], written before `upload`, read after `download`.
        device: the device side.
    """

    def __init__(self, device: Device, size: int) -> None:
        self._library = device.library
        self._pinned: ctypes.c_void_p | None = None
        self.device = DeviceBuffer(device, size)
        if not device.runtime.on_device:
            self._pinned = ctypes.c_void_p()
            try:
                self._library.call("aclrtMallocHost", self._pinned, size)
            except AclError:
                self.device.close()
                raise
        address = self.device.address if self._pinned is None else self._pinned.value
        assert address is not None, "allocated memory is not null"
        self.host: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def upload(self, count: int, stream: Stream) -> None:
        """Begin copying the first `count` bytes to the device."""
        if self._pinned is not None:
            target = (self.device.address, self.device.size)
            kind = MemcpyKind.HOST_TO_DEVICE
            self._library.call("aclrtMemcpyAsync", *target, self._pinned, count, kind, stream.handle)

    def download(self, count: int, stream: Stream) -> None:
        """Begin copying the first `count` bytes to the host."""
        if self._pinned is not None:
            source, kind = self.device.address, MemcpyKind.DEVICE_TO_HOST
            self._library.call("aclrtMemcpyAsync", self._pinned, self.device.size, source, count, kind, stream.handle)

    def close(self) -> None:
        """Free both sides; `host` must not be touched any more."""
        del self.host
        if self._pinned is not None:
            self._library.release("aclrtFreeHost", self._pinned)
        self.device.close()
