"""A server as a process tree: started, waited for, its core time counted, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def busy_core_seconds() -> float:
    """Core time that the whole machine has spent on anything, and that its host took away (steal), since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


class ServerTree:
    """A server and its descendants; a context manager that ends them.

    Args:
        command: The command line.
        settings: Environment variables besides this process's own, without settings of Tessera's.
        log: Where its output goes.
    """

    def __init__(self, command: Sequence[str], settings: Mapping[str, str], log: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                cwd=REPOSITORY,
                env={**kept, "PYTHONPATH": str(REPOSITORY), **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check_running(self) -> None:
        """Raise `SystemExit` with the end of its log when it has ended."""
        if self._process.poll() is not None:
            end = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"a server ended with code {self._process.returncode}:\n{end}")

    def core_seconds(self) -> float:
        """Core time that the tree has taken so far, that of ended and waited-for children included."""
        return sum(core_seconds(pid) for pid in self._tree())

    def pause(self) -> None:
        """Stop all its processes until `resume`: some servers keep a core busy waiting for requests."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> ServerTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        tree = self._tree()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        time.sleep(0.5)
        for pid in tree:  # helpers that outlived it
            if pid != self._process.pid and _parent(pid) is not None:
                os.kill(pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._tree():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _tree(self) -> list[int]:
        parents = {
            int(entry.name): _parent(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()
        }
        tree = [self._process.pid]
        for pid in tree:  # grows while it is read
            tree += [child for child, parent in parents.items() if parent == pid]
        return tree


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int | None:
    fields = _fields(pid)
    return int(fields[1]) if fields and fields[0] != "Z" else None


def core_seconds(pid: int) -> float:
    """Core time that a process, and those of its children that it has waited for, have taken so far."""
    return sum(int(field) for field in _fields(pid)[11:15]) / _TICKS
