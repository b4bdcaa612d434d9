"""The children of the supervisor: one engine process and the frontends, each from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial

from tessera.app.processes.activity import activity_of
from tessera.app.processes.child_process import spawn
from tessera.app.processes.messages import Channel, Kind, Message, pack_file, pair
from tessera.app.processes.watchdog import INTERVAL, Patience, Watchdog

logger = logging.getLogger(__name__)

_ENDING = Patience(5.0, 5.0)  # for children to end by themselves


class Child:
    """One child process.

    Attributes:
        ready: Whether it has said that it works.
        idle: Whether it has said that it drains and has nothing in flight.
        waited: How often an engine process has said that it waits to be configured: its heartbeat as a spare.
        watchdog: Watches it.

    Args:
        name: For people, and unique among those alive.
        module: Its code; see `tessera.app.processes.child_process.spawn`.
        inherited: A listening socket for it.
        on_message: Called with the child and each message.
        on_end: Called once with the child when it has ended, or has been killed.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        inherited: socket.socket | None = None,
        on_message: Callable[[Child, Message], None],
        on_end: Callable[[Child], None],
    ) -> None:
        ours, theirs = pair()
        self.name = name
        self.ready = False
        self.idle = False
        self.waited = 0
        self._on_end = on_end
        self._ended = False
        self._stopping = False
        with theirs:
            self._process: subprocess.Popen[bytes] = spawn(
                name, module, theirs, [inherited.fileno()] if inherited is not None else []
            )
        self.watchdog = Watchdog(partial(activity_of, self._process.pid))
        self._channel = Channel(ours, lambda message: on_message(self, message), self._closed)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def configure(self, told: bytes, files: tuple[int, ...]) -> None:
        """Tell it what to be; until then it only imports its code.

        Args:
            told: JSON of `tessera.app.processes.child_process.configure`.
            files: Descriptors to send with it; they stay open here.
        """
        self.send(Message(Kind.CONFIGURE, files=(pack_file(told), *map(os.dup, files))))

    def send(self, message: Message) -> None:
        """Send it a message."""
        self._channel.send(message)

    def stop(self) -> None:
        """Ask it to end by itself, and let it: a runtime of an accelerator may have its own things to do at the end."""
        self._stopping = True
        self.send(Message(Kind.STOP))

    def kill(self) -> None:
        """End it now, even when it is stopped or hung."""
        self._process.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until it has ended; returns the exit code, or minus the signal."""
        return await asyncio.to_thread(self._process.wait)

    def _closed(self) -> None:
        if not self._ended:
            self._ended = True
            # Usually it is dead; a process that has merely lost its connection is of no use either.
            if not self._stopping:
                self.kill()
            self._on_end(self)


def connect(engine: Child, frontend: Child, slots: int) -> None:
    """Let a frontend and the engine process talk to each other, about the frontend's slots."""
    engine_end, frontend_end = pair()
    engine.send(Message(Kind.ATTACH, files=(engine_end.detach(), os.dup(slots))))
    frontend.send(Message(Kind.ATTACH, files=(frontend_end.detach(), os.dup(slots))))


async def report_end(child: Child) -> None:
    """Log how a child ended, once it has."""
    code = await child.wait()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    logger.error("a process ended and is replaced", extra={"fields": {"process": child.name, "end": how}})


async def end(children: list[Child]) -> None:
    """Ask children to end, give them a moment, then end them. Those not ready have nothing to finish."""
    for child in children:
        if child.ready:
            child.stop()
        else:
            child.kill()
    waits = {asyncio.ensure_future(child.wait()): child for child in children}
    watchdogs = {child: Watchdog(partial(activity_of, child.pid)) for child in children}
    pending = set(waits)
    while pending:
        _, pending = await asyncio.wait(pending, timeout=INTERVAL)
        for child in [waits[wait] for wait in pending]:
            if watchdogs[child].look(0, _ENDING) is not None:
                child.kill()
