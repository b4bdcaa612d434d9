"""Finding libascendcl.so and calling it."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tessera.engine.backends.ascend.errors import error_of
from tessera.engine.backends.ascend.prototypes import PROTOTYPES, Part, Prototype
from tessera.engine.errors import BackendUnavailableError, EngineError

logger = logging.getLogger(__name__)

# In the order of trying. One library until CANN 8.3; from 8.5 also apart, and only apart some day.
_NAMES: dict[Part, tuple[str, ...]] = {
    "runtime": ("libascendcl.so", "libacl_rt.so"),
    "model": ("libascendcl.so", "libacl_mdl.so"),
    "profiling": ("libmsprofiler.so", "libascendcl.so"),
}


class Library:
    """AscendCL's functions, typed. Calls release the GIL.

    Args:
        functions: by name; functions of later CANN versions may be missing.
        path: where the runtime was found, for people.
    """

    def __init__(self, functions: dict[str, Callable[..., Any]], path: str) -> None:
        self._functions = functions
        self.path = path

    def has(self, name: str) -> bool:
        """Whether this CANN version has the function."""
        return name in self._functions

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns an aclError.

        Raises:
            AclError: of the class of the code, with CANN's message, which is kept per thread and read at once.
            StubLibraryError: the library is CANN's stub.
        """
        code = self._functions[name](*arguments)
        if code != 0:
            raise error_of(name, code, self._recent_message())

    def value(self, name: str, *arguments: Any) -> Any:
        """Call a function that returns something else than an aclError."""
        return self._functions[name](*arguments)

    def pointer(self, name: str, *arguments: Any) -> int:
        """Call a function that makes something.

        Raises:
            AclError: it returned null.
        """
        made = self._functions[name](*arguments)
        if not made:
            raise error_of(name, 200000, self._recent_message())
        return int(made)

    def release(self, name: str, *arguments: Any) -> None:
        """Give something back. Failing here is logged, not raised: the next thing must be given back too."""
        try:
            self.call(name, *arguments)
        except EngineError as error:
            logger.warning("while giving back: %s", error)

    def _recent_message(self) -> str:
        message: bytes | None = self._functions["aclGetRecentErrMsg"]()
        return " ".join(message.decode(errors="replace").split()) if message else ""


def load_library(names: dict[Part, Sequence[str | Path]] | None = None) -> Library:
    """Load AscendCL.

    Args:
        names: shared objects to try for each part, instead of CANN's names on the loader's search path.

    Raises:
        BackendUnavailableError: there is none, or it lacks functions that CANN 6.0 has.
    """
    opened: dict[str, ctypes.CDLL | OSError] = {}
    functions: dict[str, Callable[..., Any]] = {}
    missing = []
    for prototype in PROTOTYPES.values():
        candidates = [_open(str(name), opened) for name in (names or _NAMES)[prototype.part]]
        function = next((f for library in candidates if (f := _bind(library, prototype)) is not None), None)
        if function is not None:
            functions[prototype.name] = function
        elif prototype.since == "6.0" and prototype.part != "profiling":
            missing.append(prototype.name)
    libraries = {name: library for name, library in opened.items() if isinstance(library, ctypes.CDLL)}
    if not libraries:
        reasons = "; ".join(str(error) for error in opened.values())
        raise BackendUnavailableError(
            f"Backend 'ascend' found no libascendcl.so ({reasons}). It needs an Ascend NPU, its driver and the CANN "
            "toolkit; source CANN's set_env.sh so that the loader finds it. Machines without one have the "
            "backend 'cpu'."
        )
    if missing:
        raise BackendUnavailableError(
            f"{', '.join(libraries)} lacks {', '.join(missing)}: it is older than CANN 6.0, or incomplete."
        )
    return Library(functions, next(iter(libraries)))


def _open(name: str, opened: dict[str, ctypes.CDLL | OSError]) -> ctypes.CDLL | OSError:
    if name not in opened:
        try:
            opened[name] = ctypes.CDLL(name)
        except OSError as error:
            opened[name] = error
    return opened[name]


def _bind(library: ctypes.CDLL | OSError, prototype: Prototype) -> Callable[..., Any] | None:
    function = getattr(library, prototype.name, None) if isinstance(library, ctypes.CDLL) else None
    if function is None:
        return None
    function.restype = prototype.returns
    function.argtypes = prototype.arguments
    return function  # type: ignore[no-any-return]  # ctypes types its function pointers as Any
