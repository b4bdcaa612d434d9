"""AscendCL in this process: initialised once, never finalised."""

from __future__ import annotations

import ctypes
import threading

from tessera.engine.backends.ascend.constants import RunMode, Status
from tessera.engine.backends.ascend.errors import AclError
from tessera.engine.backends.ascend.library import Library, load_library
from tessera.engine.errors import BackendUnavailableError


class Runtime:
    """AscendCL, initialised.

    There is no end to it on purpose: `aclFinalize` waits for logs, must come after everything else in the process that
    uses AscendCL, and crashes when it runs while the interpreter is taken down. The driver cleans up after a process.

    Args:
        library: AscendCL.

    Attributes:
        library: AscendCL.
        device_count: devices that this process may see.
        on_device: True on boards in RC mode, where host and device share one memory.

    Raises:
        BackendUnavailableError: AscendCL cannot be initialised here, or shows no device.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        try:
            self._initialise()
            count, mode = ctypes.c_uint32(), ctypes.c_int()
            library.call("aclrtGetDeviceCount", count)
            library.call("aclrtGetRunMode", mode)
        except AclError as error:
            raise BackendUnavailableError(f"AscendCL ({library.path}) does not start: {error}") from error
        self.device_count = count.value
        self.on_device = mode.value == RunMode.DEVICE
        if self.device_count == 0:
            raise BackendUnavailableError(
                f"AscendCL ({library.path}) shows no device: check npu-smi info, ASCEND_RT_VISIBLE_DEVICES, and that "
                "/dev/davinci* is passed into the container."
            )

    @property
    def soc_name(self) -> str:
        """The chip as ATC names it, such as "Ascend310B1"; empty when CANN does not say."""
        name: bytes | None = self.library.value("aclrtGetSocName")
        return name.decode(errors="replace") if name else ""

    def _initialise(self) -> None:
        try:
            self.library.call("aclInit", None)
        except AclError as error:
            if error.code != Status.REPEAT_INITIALIZE:  # another user of AscendCL in this process was first
                raise


_shared: Runtime | None = None
_shared_lock = threading.Lock()


def shared_runtime() -> Runtime:
    """The runtime of this process, started on first use.

    Raises:
        BackendUnavailableError: there is no AscendCL on this machine, or no device.
    """
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Runtime(load_library())
        return _shared
