"""The memory that pictures may hold while they are decoded, over all requests and all processes of the service."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import struct
import sys
import threading
import time
from typing import Protocol

TOKENS = 64  # in which the memory is handed out

_LOCK = struct.Struct("hhqqi4x")  # C's struct flock: type, whence, start, length, process (0: of the open file)
_POLL_SECONDS = 0.01


def tokens_of(share: float) -> int:
    """How many tokens a share of the memory is, 0 to 1; at least one."""
    return min(TOKENS, max(1, math.ceil(share * TOKENS)))


class DecodeMemory(Protocol):
    """Hands out the memory, in the order in which it is asked for, so that a large share is not starved."""

    def take(self, share: float) -> int:
        """Wait for a share of it, 0 to 1.

        Returns:
            What `give_back` wants to know.
        """

    def give_back(self, grant: int) -> None:
        """Let go of what `take` returned."""


class LocalMemory:
    """The memory of a service in one process. One thread at a time may wait in `take`."""

    def __init__(self) -> None:
        self._free = TOKENS
        self._returned = threading.Condition()

    def take(self, share: float) -> int:
        """See `DecodeMemory.take`."""
        tokens = tokens_of(share)
        with self._returned:
            self._returned.wait_for(lambda: self._free >= tokens)
            self._free -= tokens
        return tokens

    def give_back(self, grant: int) -> None:
        """See `DecodeMemory.give_back`."""
        with self._returned:
            self._free += grant
            self._returned.notify()


class SharedMemory:
    """The memory of a service in several processes: a file, of which each locked byte is a token.

    The system lets go of the locks of a process that dies, however that happens. Locks belong to an open file, not to
    the process (Linux's F_OFD_SETLK), so each grant is a descriptor of its own.

    Args:
        file: A descriptor of `create_shared_memory`; it stays the caller's.
    """

    def __init__(self, file: int) -> None:
        self._path = f"/proc/self/fd/{file}"

    def take(self, share: float) -> int:
        """See `DecodeMemory.take`. The thread that waits first, in any process, is served first."""
        left = tokens_of(share)
        grant = self._open()
        _lock(grant, 0, wait=True)
        untaken = list(range(1, TOKENS + 1))
        while True:
            for token in list(untaken):
                if left and _lock(grant, token):
                    untaken.remove(token)
                    left -= 1
            if not left:
                break
            time.sleep(_POLL_SECONDS)
        _lock(grant, 0, kind=fcntl.F_UNLCK)
        return grant

    def give_back(self, grant: int) -> None:
        """See `DecodeMemory.give_back`."""
        os.close(grant)

    def _open(self) -> int:
        while True:
            try:
                return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                time.sleep(_POLL_SECONDS)  # connections have all descriptors; they come and go


def create_shared_memory() -> int:
    """An anonymous file for `SharedMemory`; returns its descriptor."""
    return os.memfd_create("tessera-decoding", os.MFD_CLOEXEC)


def _lock(file: int, byte: int, *, kind: int = fcntl.F_WRLCK, wait: bool = False) -> bool:
    """Lock, or let go of, a byte of an open file; returns whether it could be done at once, or after waiting."""
    assert sys.platform == "linux", "several processes are for Linux"
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
