"""libtiff's own messages, which would go to standard error past the log: two lines for each tag it does not know."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path

_MAPPED = re.compile(r"(/\S*libtiff\S*)$", re.MULTILINE)


def silence_libtiff() -> None:
    """Have libtiff keep its warnings and errors to itself; that a file is damaged, Pillow learns from what it returns.

    It is the copy that Pillow has loaded into this process that is asked; does nothing where it cannot be found.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        for path in set(_MAPPED.findall(Path("/proc/self/maps").read_text())):
            library = ctypes.CDLL(path)
            for name in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
                with contextlib.suppress(AttributeError):
                    function = getattr(library, name)
                    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
                    function(None)
