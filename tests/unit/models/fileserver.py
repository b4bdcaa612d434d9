"""A real HTTP server on this machine that serves files well or badly, as a test tells it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Served:
    """One address.

    `breaks` are the bytes after which successive transfers break off; `pause` is slept before every kilobyte.
    """

    data: bytes = b""
    status: int = 200
    location: str = ""
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    pause: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True


class FileServer:
    """Addresses by path, and the requests that came: (path, Range header)."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, str]] = []
        files, requests = self.files, self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                requests.append((self.path, wanted))
                served = files.get(self.path, Served(status=404))
                data, status, headers = served.data, served.status, dict(served.headers)
                if served.location:
                    headers["Location"] = served.location
                elif (match := re.fullmatch(r"bytes=(\d+)-", wanted)) and served.ranges and status == 200:
                    start = int(match[1])
                    if start >= len(data):
                        self.send_error(416)
                        return
                    headers.setdefault("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                    data, status = data[start:], 206
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if served.length:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if served.breaks:
                    data = data[: served.breaks.pop(0)]
                try:
                    for position in range(0, len(data), 1024):
                        time.sleep(served.pause)
                        self.wfile.write(data[position : position + 1024])
                except OSError:
                    pass  # the client has had enough

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def running() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        server.server.server_close()
        thread.join()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as server:
        yield server
