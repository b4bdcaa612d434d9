"""Real server processes for tests: started with `python -m tessera.app.cli serve`, stopped with a signal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.waiting import NEVER

REPOSITORY = Path(__file__).resolve().parents[1]
# Kept between runs, so that the bundled model is built once; keyed by content, so never stale.
CACHE = Path(os.environ.get("TESSERA_CACHE_DIR", REPOSITORY / ".cache" / "tests"))
READY = re.compile(r"Tessera is ready on (http://\S+)")


def environment(**extra: str) -> dict[str, str]:
    """This environment without settings of the developer's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}
    isa = {"TESSERA_ISA": os.environ["TESSERA_ISA"]} if "TESSERA_ISA" in os.environ else {}
    return {**kept, **isa, "PYTHONPATH": str(REPOSITORY), "TESSERA_CACHE_DIR": str(CACHE), **extra}


def tessera(*arguments: str, timeout: float = NEVER, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a `tessera` command to its end."""
    command = [sys.executable, "-m", "tessera.app.cli", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(**extra), capture_output=True, text=True, timeout=timeout, check=False
    )


class ServerProcess:
    """A running `tessera serve`; a context manager that stops it.

    Args:
        flags: Further flags.
        wait: Whether to wait until it is ready.
        modules: A folder whose modules, `sitecustomize` for one, its processes find first.
        settings: Settings.
    """

    def __init__(self, *flags: str, wait: bool = True, modules: Path | None = None, **settings: object) -> None:
        variables = {f"TESSERA_{name.upper()}": str(value) for name, value in settings.items()}
        if modules is not None:
            variables["PYTHONPATH"] = f"{modules}{os.pathsep}{REPOSITORY}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tessera.app.cli", "serve", "--port", "0", *flags],
            cwd=REPOSITORY,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._listening = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if wait:
            self.wait_until_ready()
        else:
            assert self._listening.wait(NEVER), self.describe()

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = READY.match(line)
        if match is None:
            self.kill()
            raise AssertionError(f"the server did not become ready: {line}{self.describe()}")
        self.url = match[1]

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=NEVER, **options)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(NEVER)
        self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def describe(self) -> str:
        return "\n".join(self.log[-30:])

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.kill()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            if (found := re.search(r"listening url=(\S+)", line)) is not None:
                self.url = found[1]
                self._listening.set()


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server with the bundled model, and default settings but for time: a request may take as long as it likes."""
    with ServerProcess(request_timeout_ms=600_000) as running:
        yield running
        assert running.stop() == 0, running.describe()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as connected:
        yield connected
