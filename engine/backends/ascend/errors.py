"""What AscendCL can complain about, by the class of its code.

All but `StubLibraryError` are an `tessera.engine.DeviceError`:

    AclError               an AscendCL function returned a code
    ├── AclUsageError      1xxxxx: the call, the model or its input was wrong
    ├── AclResourceError   2xxxxx, 3xxxxx: memory, streams or permission ran out; may pass
    └── AclFaultError      5xxxxx: the device or its driver failed; it leaves the rotation
        └── AclTimeoutError  it did not answer in time
"""

from __future__ import annotations

from tessera.engine.backends.ascend.constants import ADVICE, ERROR_NAMES, Status
from tessera.engine.errors import BackendUnavailableError, DeviceError

_TIMEOUTS = (Status.WAIT_TIMEOUT, Status.TASK_TIMEOUT, Status.AICORE_TIMEOUT, Status.STREAM_SYNC_TIMEOUT)


class AclError(DeviceError):
    """An AscendCL function returned an error code.

    Attributes:
        function: the function.
        code: what it returned.
        detail: CANN's own message, read on the failing thread; may be empty.
    """

    def __init__(self, function: str, code: int, detail: str = "") -> None:
        super().__init__(function, code, detail)
        self.function = function
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        name = ERROR_NAMES.get(self.code, "a code that this version does not know")
        sentences = [f"{self.function} failed with {self.code} ({name})."]
        sentences += [ADVICE[self.code]] if self.code in ADVICE else []
        sentences += [f"CANN says: {self.detail}"] if self.detail else []
        return " ".join(sentences)


class AclUsageError(AclError):
    """1xxxxx: the call, the model or its input was wrong. The device is fine."""


class AclResourceError(AclError):
    """2xxxxx and 3xxxxx: memory, streams, permission or a device is lacking. It may pass."""


class AclFaultError(AclError):
    """5xxxxx: the device, its driver or CANN failed. The device is not used until it was set up again."""

    def again(self) -> AclFaultError:
        """A new error that says the same, for another thread to raise."""
        return type(self)(self.function, self.code, self.detail)


class AclTimeoutError(AclFaultError):
    """The device did not finish in time; what it was doing may still go on."""


class StubLibraryError(BackendUnavailableError):
    """100039: the library that was loaded is CANN's stub, made for linking only."""


def error_of(function: str, code: int, detail: str) -> AclError | StubLibraryError:
    """The error for a code that `function` returned."""
    if code == Status.COMPILING_STUB_MODE:
        return StubLibraryError(f"{function} failed with {code}. {ADVICE[code]}")
    if code in _TIMEOUTS:
        return AclTimeoutError(function, code, detail)
    by_class = {"1": AclUsageError, "2": AclResourceError, "3": AclResourceError}
    return by_class.get(str(code)[:1], AclFaultError)(function, code, detail)
