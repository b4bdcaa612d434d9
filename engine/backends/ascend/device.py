"""One device, through a context of our own."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tessera.engine.backends.ascend.constants import MemoryAttribute
from tessera.engine.backends.ascend.errors import AclError, AclTimeoutError
from tessera.engine.backends.ascend.runtime import Runtime
from tessera.engine.backends.ascend.structures import UtilizationInfo

logger = logging.getLogger(__name__)


@dataclass
class Stream:
    """A queue of work on a device; `handle` is CANN's, None once destroyed."""

    handle: int | None


class Device:
    """One device.

    AscendCL keeps the current context per thread, and fails with 107002 on a thread that has none. So AscendCL is
    called for this device inside `active()` only, on any thread: by every method here, and by all other code.

    Args:
        runtime: AscendCL.
        index: the device, from 0.

    Raises:
        AclError: the device cannot be opened.
    """

    def __init__(self, runtime: Runtime, index: int) -> None:
        self.runtime = runtime
        self.library = runtime.library
        self.index = index
        context = ctypes.c_void_p()
        self.library.call("aclrtSetDevice", index)
        try:
            self.library.call("aclrtCreateContext", context, index)
        except AclError:
            self.library.release("aclrtResetDevice", index)
            raise
        self._context = context.value

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this device's context current on this thread.

        Raises:
            AclError: the context is gone.
        """
        self.library.call("aclrtSetCurrentContext", self._context)
        yield

    def create_stream(self) -> Stream:
        """Make a stream; inside `active()`."""
        handle = ctypes.c_void_p()
        self.library.call("aclrtCreateStream", handle)
        return Stream(handle.value)

    def synchronise(self, stream: Stream, timeout_ms: int) -> None:
        """Wait for everything on a stream; inside `active()`.

        Raises:
            AclTimeoutError: it is not done after `timeout_ms`.
            AclError: something on the stream failed.
        """
        self.library.call("aclrtSynchronizeStreamWithTimeout", stream.handle, timeout_ms)

    def drain(self, stream: Stream, timeout_ms: int) -> bool:
        """Wait until a stream no longer uses memory, failed or not; inside `active()`.

        Returns:
            False when its work does not end and this CANN version cannot drop it: the memory that it uses must stay.
        """
        try:
            self.synchronise(stream, timeout_ms)
        except AclTimeoutError:
            if not self.library.has("aclrtDestroyStreamForce"):
                return False
            self.destroy_stream(stream, "aclrtDestroyStreamForce")
        except AclError as error:
            logger.debug("draining a stream of device %d: %s", self.index, error)
        return True

    def destroy_stream(self, stream: Stream, function: str = "aclrtDestroyStream") -> None:
        """Destroy a drained stream, once; inside `active()`."""
        if stream.handle is not None:
            self.library.release(function, stream.handle)
            stream.handle = None

    def memory(self) -> tuple[int, int] | None:
        """(free, total) bytes of device memory, or None when it does not say.

        310-class chips have DDR, 910-class ones HBM; the other kind is refused or empty.
        """
        for attribute in (MemoryAttribute.DDR, MemoryAttribute.HBM):
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            try:
                with self.active():
                    self.library.call("aclrtGetMemInfo", attribute, free, total)
            except AclError:
                continue
            if total.value > 0:
                return free.value, total.value
        return None

    def utilisation(self) -> dict[str, float]:
        """Share of time that each unit (cube, vector, aicpu) was busy, 0 to 1; empty where CANN cannot say."""
        if not self.library.has("aclrtGetDeviceUtilizationRate"):
            return {}
        rates = UtilizationInfo()
        try:
            with self.active():
                self.library.call("aclrtGetDeviceUtilizationRate", self.index, rates)
        except AclError:
            return {}
        units = {"cube": rates.cube, "vector": rates.vector, "aicpu": rates.aicpu}
        return {unit: percent / 100 for unit, percent in units.items() if percent >= 0}

    def close(self) -> None:
        """Give the context and the device back. Everything that lives on it must be gone."""
        self.library.release("aclrtDestroyContext", self._context)
        self.library.release("aclrtResetDevice", self.index)
