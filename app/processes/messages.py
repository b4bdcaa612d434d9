"""Messages between the processes: fixed binary records over Unix sockets that keep message boundaries; no pickle.

What does not fit a record (a model's description, metrics) is JSON in an anonymous file, and its descriptor is passed
along. So no message has a size limit, and nothing is left behind when a process dies on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum, unique
from typing import NamedTuple

from tessera.app.errors import (
    DeadlineExceededError,
    DeadlineUnreachableError,
    InternalError,
    LoadFailedError,
    ModelUnavailableError,
    NotReadyError,
    QueueFullError,
    RequestError,
)
from tessera.app.scheduling.ticket import InputType, Priority

_LARGEST = 64 * 1024  # bytes of one message
_MOST_FILES = 4  # descriptors with one message
_HEADER = struct.Struct("<BxxxIQ")  # kind, number, identity
HEADER_BYTES = _HEADER.size
_IDENTITY = struct.Struct("<Q")
_LONGEST_TEXT = 4096
# What the scheduler may say of a request.
_ERRORS: dict[str, type[RequestError]] = {
    kind.code: kind
    for kind in (
        QueueFullError,
        DeadlineUnreachableError,
        DeadlineExceededError,
        NotReadyError,
        ModelUnavailableError,
        LoadFailedError,
    )
}

INPUT_TYPES: tuple[InputType, ...] = ("uint8", "float32")
PRIORITIES = tuple(Priority)


@unique
class Kind(IntEnum):
    """What a message says; its sender and receiver stand beside it."""

    # frontend -> engine
    ADMIT = 1  # body: Request
    SUBMIT = 2  # number: first slot of the rows; body: seconds of a core that decoding took
    CANCEL = 3
    CHANGE = 7  # number: a Change; body: the variant
    # engine -> frontend
    DONE = 4  # body: identities; their outcomes lie in the slots
    FAILED = 5  # number: Retry-After, 0 for none; body: error code, space, message
    CANCELLED = 6
    CHANGED = 8  # identity: of the CHANGE; files: JSON of the model as it is now. The supervisor gets it too
    EXPLAINED = 9  # before DONE; files: the heat maps
    # supervisor -> engine, frontend
    CONFIGURE = 16  # files: JSON (settings and more), status page
    ATTACH = 17  # files: socket, the frontend's slots; a frontend has the model by then
    STATUS = 18  # number: an index of Phase; identity: per mille of the stage; body: the stage
    MODEL = 19  # number: images to decode at once; files: JSON
    DRAIN = 20
    STOP = 21
    COLLECT = 22  # identity: echoed
    METRICS = 23  # identity: of the SCRAPE; files: the exposition
    GUARD = 24  # number: 1 while the accuracy guard keeps traffic on the baseline, else 0
    ANSWER = 25  # identity: of the ASK; files: JSON
    LEAVE = 26  # turn readiness off, and answer all the same until DRAIN
    # engine, frontend -> supervisor
    PROGRESS = 32  # number: per mille; body: stage
    READY = 33  # the engine adds number: images that the service decodes at once; files: JSON of the model
    BROKEN = 34  # body: why the engine cannot serve the model
    COLLECTED = 35  # identity: of the COLLECT; files: JSON
    SCRAPE = 36  # body: the Accept header
    IDLE = 37  # draining, and no request is in flight
    STOPPED = 38  # number: requests that were cut off
    EVENTS = 39  # body: what happened to the experiment, see `tessera.app.routing.events`
    ASK = 40  # body: a question of `SharedExperiment.answer`
    WAITING = 41  # an engine process has imported everything; a spare goes on saying so, it is its heartbeat


class Change(IntEnum):
    """What a CHANGE does with a variant."""

    UNLOAD = 0
    LOAD = 1
    EXPLAIN = 2  # make what it needs for that


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: What it says.
        number: A small number; its meaning depends on the kind.
        identity: Of the request it is about.
        body: The rest.
        files: Descriptors that came with it; the receiver owns them.
    """

    kind: int
    number: int = 0
    identity: int = 0
    body: bytes = b""
    files: tuple[int, ...] = ()


class Request(NamedTuple):
    """The body of ADMIT.

    Attributes:
        variant: Index in the sorted names of the model's lanes.
        images: How many.
        dtype: Index in `INPUT_TYPES`.
        priority: Index in `PRIORITIES`.
        deadline: Reading of `time.perf_counter`, infinity for none.
        alone: Whether the images are to run one at a time, with no others beside them.
        explain: Of how many of the highest scores it is asked where they come from.
    """

    variant: int
    images: int
    dtype: int
    priority: int
    deadline: float
    alone: bool = False
    explain: int = 0

    def pack(self) -> bytes:
        """As bytes."""
        return _REQUEST.pack(*self)

    @classmethod
    def unpack(cls, body: bytes) -> Request:
        """The inverse of `pack`."""
        return cls(*_REQUEST.unpack(body))


_REQUEST = struct.Struct("<HxxIBBxxxxxxd?I")
_SECONDS = struct.Struct("<d")


def pack_seconds(seconds: float) -> bytes:
    """The body of SUBMIT."""
    return _SECONDS.pack(seconds)


def unpack_seconds(body: bytes) -> float:
    """The inverse of `pack_seconds`."""
    seconds: float = _SECONDS.unpack(body)[0]
    return seconds


def pack_error(error: RequestError) -> Message:
    """FAILED, without the identity."""
    body = f"{error.code} {error.message}".encode()[:_LONGEST_TEXT]
    return Message(Kind.FAILED, error.retry_after or 0, body=body)


def unpack_error(message: Message) -> RequestError:
    """The error of a FAILED message."""
    code, _, text = message.body.decode(errors="replace").partition(" ")
    kind = _ERRORS.get(code, InternalError)
    return kind(text, retry_after=message.number or None)


def pack_identities(identities: Sequence[int]) -> bytes:
    """The body of DONE."""
    return struct.pack(f"<{len(identities)}Q", *identities)


def unpack_identities(body: bytes) -> tuple[int, ...]:
    """The inverse of `pack_identities`."""
    return struct.unpack(f"<{len(body) // _IDENTITY.size}Q", body)


def pack_file(data: bytes) -> int:
    """Put `data` into an anonymous file; returns its descriptor, which the caller closes after sending it."""
    file = os.memfd_create("tessera-message", os.MFD_CLOEXEC)
    with open(file, "wb", closefd=False) as stream:
        stream.write(data)
    return file


def unpack_file(file: int) -> bytes:
    """Read what `pack_file` made, and close it."""
    with open(file, "rb") as stream:
        stream.seek(0)
        return stream.read()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, for two processes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def read_message(end: socket.socket) -> Message:
    """Wait for one message on a socket that has no channel yet.

    Raises:
        EOFError: The other end is gone.
    """
    packed, files, _, _ = socket.recv_fds(end, _LARGEST, _MOST_FILES, socket.MSG_CMSG_CLOEXEC)
    if len(packed) < HEADER_BYTES:
        raise EOFError("the other process has closed the connection")
    return _unpack(packed, files)


def write_message(end: socket.socket, message: Message) -> None:
    """Send a message without files on a socket that has no channel yet.

    Raises:
        OSError: The other end is gone.
    """
    end.send(_pack(message))


def _pack(message: Message) -> bytes:
    return _HEADER.pack(message.kind, message.number, message.identity) + message.body


def _unpack(packed: bytes, files: Sequence[int]) -> Message:
    kind, number, identity = _HEADER.unpack_from(packed)
    return Message(kind, number, identity, packed[HEADER_BYTES:], tuple(files))


class Channel:
    """One end of a connection between two processes, on the running event loop.

    Sending never blocks: what the other end does not take yet waits here, in order.

    Args:
        end: A socket of `pair`; the channel owns it.
        on_message: Called with every message.
        on_close: Called once when the other end is gone; not after `close`.
    """

    def __init__(self, end: socket.socket, on_message: Callable[[Message], None], on_close: Callable[[], None]) -> None:
        end.setblocking(False)
        self._end = end
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._closed = False
        self._loop.add_reader(end.fileno(), self._receive)

    def send(self, message: Message) -> None:
        """Send a message; its files are closed when they are on their way. Nothing happens when the other is gone."""
        packed = _pack(message)
        if self._closed:
            _close_files(message.files)
        elif self._outgoing or not self._send_now(packed, message.files):
            self._outgoing.append((packed, message.files))
            self._loop.add_writer(self._end.fileno(), self._send_waiting)

    def close(self) -> None:
        """Close this end."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        for _, files in self._outgoing:
            _close_files(files)
        self._outgoing.clear()
        self._end.close()
        # The owner hears no more of the channel. Without these references to it, it is freed as soon as it is
        # forgotten.
        self._on_message, self._on_close = _ignore_message, _ignore_end

    def _send_now(self, packed: bytes, files: tuple[int, ...]) -> bool:
        try:
            if files:
                socket.send_fds(self._end, [packed], files)
            else:
                self._end.send(packed)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            pass  # the other end is gone, as the reader is about to learn
        _close_files(files)
        return True

    def _send_waiting(self) -> None:
        while self._outgoing:
            if not self._send_now(*self._outgoing[0]):
                return
            self._outgoing.popleft()
        self._loop.remove_writer(self._end.fileno())

    def _receive(self) -> None:
        while not self._closed:
            try:
                packed, files, _, _ = socket.recv_fds(self._end, _LARGEST, _MOST_FILES, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packed, files = b"", []
            if len(packed) < HEADER_BYTES:
                _close_files(files)
                on_close = self._on_close
                self.close()
                on_close()
                return
            self._on_message(_unpack(packed, files))


def _ignore_message(message: Message) -> None:
    _close_files(message.files)


def _ignore_end() -> None:
    pass


def _close_files(files: Sequence[int]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)
