"""What the garbage collector looks at, and what the allocator keeps."""

from __future__ import annotations

import contextlib
import ctypes
import gc

# Of `mallopt`, in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def give_back_large_blocks() -> None:
    """Let the allocator return every block of 4 MiB or more as soon as it is freed; for commands that hold much.

    By itself glibc raises that bound to 32 MB with the first such block, and feature maps that were freed long ago stay
    with the process, held down by small objects that lie above them. A lower bound, or a top of the heap that is given
    back at once, has the kernel clear pages without end: a third of all processor time with one mebibyte.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def freeze_heap() -> None:
    """Leave out of all collections what is alive now; for a process that has loaded what it will keep.

    A full collection walks through every object of every imported module while it holds the interpreter's lock: 37 ms
    in a server that has loaded its model, during which no request gets on. What loading has freed goes back to the
    system: glibc would keep 150 MB of it, which pictures need while they are decoded.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
