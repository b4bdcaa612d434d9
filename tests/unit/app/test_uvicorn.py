"""What is overridden of uvicorn exists and is called by it: most of it is private, and may go with any release."""

from __future__ import annotations

import asyncio
import inspect
import signal
import socket
from types import FrameType
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tessera.app.http.connection import HttpProtocol
from tessera.app.http.exchange import Exchange, Flow
from tessera.app.http.requests import RequestReader
from tessera.app.http.server import Server
from tessera.app.processes.frontend_process import FrontendServer

OVERRIDDEN = {
    (HttpProtocol, HttpToolsProtocol): {
        "_start_asgi_task",
        "connection_lost",
        "connection_made",
        "data_received",
        "eof_received",
        "on_headers_complete",
        "on_response_complete",
        "pause_writing",
        "resume_writing",
    },
    (RequestReader, HttpToolsProtocol): {
        "on_body",
        "on_header",
        "on_message_begin",
        "on_message_complete",
        "on_url",
    },
    (Exchange, RequestResponseCycle): {"send"},
    (Flow, FlowControl): {"resume_reading"},
    (Server, uvicorn.Server): {"capture_signals", "handle_exit", "on_tick"},
    (FrontendServer, uvicorn.Server): {"handle_exit", "on_tick"},
}
METHODS = [(ours, theirs, name) for (ours, theirs), names in OVERRIDDEN.items() for name in sorted(names)]
LARGE = bytes(16 * 1024 * 1024)  # more than the buffers of a connection hold


def recording(base: type, names: set[str], called: set[tuple[type, str]]) -> Any:
    """A subclass that notes which of its methods are called."""

    def method(name: str) -> Any:
        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            called.add((base, name))
            return getattr(base, name)(self, *arguments, **named)

        return call

    return type("Recording", (base,), {name: method(name) for name in names if hasattr(base, name)})


def names_of(base: type) -> set[str]:
    return {name for _, theirs, name in METHODS if theirs is base}


@pytest.fixture(scope="module")
def called() -> set[tuple[type, str]]:
    """The methods that uvicorn calls while it serves pipelined requests to a slow reader, up to a signal."""
    seen: set[tuple[type, str]] = set()

    class Ending(recording(uvicorn.Server, names_of(uvicorn.Server), seen)):  # type: ignore[misc]
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # uvicorn's would send the signal once more, to this test.
            seen.add((uvicorn.Server, "handle_exit"))
            self.should_exit = True

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        length = (b"content-length", b"%d" % len(LARGE))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": LARGE})

    async def main(listener: socket.socket) -> None:
        protocol = recording(HttpToolsProtocol, names_of(HttpToolsProtocol), seen)
        config = uvicorn.Config(app, http=protocol, lifespan="off", ws="none", log_config=None)
        serving = asyncio.create_task(Ending(config).serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" * 2)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(LARGE)) == LARGE
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        signal.raise_signal(signal.SIGTERM)
        await serving

    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:
        for base, module, name in (
            (RequestResponseCycle, httptools_impl, "RequestResponseCycle"),
            (FlowControl, httptools_impl, "FlowControl"),
        ):
            patch.setattr(module, name, recording(base, names_of(base), seen))
        asyncio.run(main(listener))
    return seen


def test_the_table_of_what_is_overridden_is_complete() -> None:
    for (ours, theirs), names in OVERRIDDEN.items():
        shared = {name for name in vars(ours).keys() & dir(theirs) if not name.startswith("__")}
        assert shared <= names, f"{ours.__name__} overrides more of {theirs.__name__} than this test knows"


@pytest.mark.parametrize(("ours", "theirs", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_uvicorn_calls_what_is_overridden(ours: type, theirs: type, name: str, called: set[tuple[type, str]]) -> None:
    where = f"{theirs.__module__}.{theirs.__name__}.{name} of uvicorn {uvicorn.__version__}"
    assert hasattr(theirs, name), f"{where} is gone; {ours.__module__} overrides it"
    assert (theirs, name) in called, f"{where} is not called any more; {ours.__module__} overrides it"
    parameters = [list(inspect.signature(getattr(owner, name)).parameters) for owner in (ours, theirs)]
    assert parameters[0] == parameters[1], f"{where} takes something else"


def test_uvicorn_stops_waiting_for_the_next_request_as_the_connection_asks_it_to() -> None:
    loop = asyncio.new_event_loop()
    try:
        protocol = HttpToolsProtocol.__new__(HttpToolsProtocol)
        waiting = loop.call_later(3600, print)
        protocol.timeout_keep_alive_task = waiting
        protocol._unset_keepalive_if_required()
        assert waiting.cancelled()
        assert protocol.timeout_keep_alive_task is None
    finally:
        loop.close()
