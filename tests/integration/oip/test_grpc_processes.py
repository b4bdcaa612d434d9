"""The port of gRPC, and gRPC with several processes."""

from __future__ import annotations

import socket
from pathlib import Path

import tritonclient.grpc as triton
import tritonclient.http as triton_http

from tests.integration.oip.grpc_clients import FILES, MODEL, listening_at, tensor
from tests.servers import ServerProcess, tessera
from tests.waiting import until


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = tessera("serve", "--port", "0", "--grpc-port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "--grpc-port" in ended.stderr
    assert "Traceback" not in ended.stderr


# Frontends that wait for a file to go away before they begin, and take some seconds to begin with gRPC.
HELD_FRONTENDS = """
import os, sys, time

class Late:
    def find_spec(self, name, path, target=None):
        if name == "tessera.app.oip.grpc.server":
            time.sleep(4)

if any("tessera.app.processes.frontend_process" in word for word in sys.orig_argv):
    sys.meta_path.insert(0, Late())
    while os.path.exists({gate!r}):
        time.sleep(0.02)
"""


def test_two_services_with_frontends_never_share_a_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "sitecustomize.py").write_text(HELD_FRONTENDS.format(gate=str(gate)))
    with ServerProcess(wait=False, modules=tmp_path, grpc_port=port, frontends=2) as first:
        until(lambda: any("listening for gRPC" in line for line in first.log))
        for frontends in (1, 0):
            ended = tessera("serve", "--port", "0", "--grpc-port", str(port), "--frontends", str(frontends))
            assert ended.returncode == 1, "the port is taken, though nobody listens on it yet"
            assert f"Port {port} on 127.0.0.1 is taken" in ended.stderr
        gate.unlink()
        first.wait_until_ready()
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert client.is_server_ready(), "a service that says it is ready answers on both of its ports"
        assert first.stop() == 0, first.describe()


def test_with_frontends_every_process_answers_on_one_port_and_statistics_are_whole() -> None:
    with ServerProcess(grpc_port=0, frontends=2) as running:
        address = listening_at(running)
        # Each channel is a connection of its own, and the kernel spreads connections over the frontends.
        for _ in range(6):
            with triton.InferenceServerClient(address) as client:
                assert client.infer(MODEL, [tensor(FILES)], model_version="1").as_numpy("output").shape == (2, 10)
        with triton_http.InferenceServerClient(running.url.removeprefix("http://")) as http:
            (entry,) = http.get_inference_statistics(MODEL, "1")["model_stats"]
        assert entry["inference_stats"]["success"]["count"] == 6
        assert entry["inference_count"] == 12
        assert running.stop() == 0, running.describe()
