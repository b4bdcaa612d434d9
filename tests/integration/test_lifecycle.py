"""Start and end of the real process, and the other commands."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tessera.app.cli import main
from tests import imagefiles
from tests.holding import Holding
from tests.servers import CACHE, READY, REPOSITORY, ServerProcess, environment, tessera
from tests.shared_data import SHARED_DATA, requires_shared_data
from tests.waiting import until

PATH = "/v1/classify"
JPEG = imagefiles.jpeg(64, 48)
# What a test holds up may take as long as the machine likes.
PATIENT = {"request_timeout_ms": 600_000, "drain_seconds": 600}


def test_readiness_comes_after_loading_and_health_before(holding: Holding) -> None:
    with holding(), holding.server(wait=False) as server, server.client() as client:
        assert client.get("/healthz").status_code == 200
        early = client.get("/readyz")
        assert (early.status_code, early.json()["code"]) == (503, "not_ready")
        assert client.get("/v1/models").status_code == 503
        refused = client.post(PATH, content=JPEG)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert int(refused.headers["Retry-After"]) >= 1
        holding.release()
        server.wait_until_ready()
        assert client.get("/readyz").json() == {
            "status": "ready",
            "model": "resnet50-imagenette",
            "variants": ["baseline", "optimised"],
        }
        assert server.stop() == 0


def long_request(server: ServerProcess, images: int) -> httpx.Response:
    with server.client(headers={"X-Model-Variant": "baseline"}) as client:
        return client.post(PATH, files=[("file", JPEG)] * images)


def wait_for_depth(client: httpx.Client, more_than: int) -> None:
    def deep() -> bool:
        (depth,) = re.findall(r"^tessera_queue_depth_images (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(depth) > more_than

    until(deep)


def wait_for_drain(client: httpx.Client) -> None:
    until(lambda: client.get("/readyz").status_code == 503)
    assert client.get("/readyz").json()["code"] == "shutting_down"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_requests_in_flight_are_finished_before_the_end(
    end: signal.Signals, holding: Holding, small_model: Path
) -> None:
    with holding.server(model_path=small_model, threads=1, **PATIENT) as server, ThreadPoolExecutor(2) as clients:
        with holding(), server.client() as client:
            running = [clients.submit(long_request, server, 20) for _ in range(2)]
            wait_for_depth(client, more_than=20)  # so both have been admitted
            server.process.send_signal(end)
            wait_for_drain(client)
            refused = client.post(PATH, content=JPEG)
            assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
            assert client.get("/healthz").status_code == 200
        for future in running:
            answer = future.result()
            assert answer.status_code == 200
            assert len(answer.json()["results"]) == 20
        assert server.wait() == 0, server.describe()


@pytest.mark.parametrize("frontends", [0, 1])
def test_a_hang_up_ends_in_order_unless_it_is_to_be_ignored(frontends: int, small_model: Path, tmp_path: Path) -> None:
    with ServerProcess(model_path=small_model, threads=1, frontends=frontends) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.wait() == 0, server.describe()
        assert "stopping" in server.describe()
    # As `nohup` has it.
    (tmp_path / "sitecustomize.py").write_text("import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    with (
        ServerProcess(model_path=small_model, threads=1, frontends=frontends, modules=tmp_path) as server,
        server.client() as client,
    ):
        server.process.send_signal(signal.SIGHUP)
        assert client.post(PATH, content=JPEG).status_code == 200
        assert server.stop() == 0, server.describe()


@pytest.mark.parametrize("frontends", [0, 1])
def test_a_service_whose_output_nobody_reads_serves_all_the_same(frontends: int, small_model: Path) -> None:
    server = ServerProcess(wait=False, model_path=small_model, threads=1, frontends=frontends)
    try:
        assert server.process.stdout is not None
        server.process.stdout.close()
        with server.client() as client:
            until(lambda: "the line that says so could not be written" in "".join(server.log))
            assert client.post(PATH, content=JPEG).status_code == 200
        assert server.stop() == 0, server.describe()
    finally:
        server.kill()


def test_a_service_whose_log_nobody_reads_serves_all_the_same(small_model: Path) -> None:
    command = [sys.executable, "-m", "tessera.app.cli", "serve", "--port", "0", "--threads", "1"]
    command += ["--model-path", str(small_model)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stderr.close()
            ready = READY.match(process.stdout.readline())
            assert ready is not None
            assert httpx.post(ready[1] + PATH, content=JPEG).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


# Fails in the event loop, once the service is ready.
FAILING_LOOP = """
import uvicorn

whole = uvicorn.Server.on_tick

async def failing(self, counter):
    if counter > 5:
        raise BrokenPipeError("made up")
    return await whole(self, counter)

uvicorn.Server.on_tick = failing
"""


def test_a_failure_of_the_event_loop_is_no_orderly_end(small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING_LOOP)
    with ServerProcess(wait=False, model_path=small_model, modules=tmp_path) as server:
        assert server.wait() == 1
        assert "made up" in server.describe()


def test_ready_is_said_when_requests_are_answered_and_not_before(small_model: Path, tmp_path: Path) -> None:
    for frontends in (0, 2):
        with ServerProcess(model_path=small_model, frontends=frontends, cache_dir=tmp_path / str(frontends)) as server:
            # A connection each, so that every frontend is asked.
            for _ in range(8):
                assert httpx.post(server.url + PATH, content=JPEG, timeout=120).status_code == 200
            assert not any(re.search(r"^tessera: .*ready", line) for line in server.log)
            assert server.stop() == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--default-variant", "fastest"), "'fastest' does not exist; resnet50-imagenette has: baseline, optimised"),
        (("--split", "optimized=90,baseline=10"), "The split names 'optimized', and resnet50-imagenette has"),
        (("--split", "optimized=90,baseline=10", "--frontends", "1"), "The split names 'optimized'"),
    ],
)
def test_variants_that_do_not_exist_are_told_before_anything_is_built(
    flags: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    ended = tessera("serve", "--port", "0", "--cache-dir", str(tmp_path / "cache"), *flags)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ("serve", "--max-bacth", "4"),
            " serve: unrecognized arguments: --max-bacth 4; did you mean --max-batch?",
        ),
        (("serve", "--max-bacth=4"), " serve: unrecognized arguments: --max-bacth=4; did you mean --max-batch?"),
        (
            ("models", "list", "--cache-dri", "x"),
            " models list: unrecognized arguments: --cache-dri x; did you mean",
        ),
        (("serve", "--zzz"), " serve: unrecognized arguments: --zzz\n"),
        (("models", "lits"), " models: argument ACTION: invalid choice: 'lits'"),
        (("sevre",), ": argument COMMAND: invalid choice: 'sevre'"),
    ],
)
def test_a_slip_on_the_command_line_is_told_first_and_briefly(
    words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("tessera" + reason)
    assert len(told.splitlines()) == 2
    assert "did you mean" in told or "zzz" in reason


@pytest.mark.effect_of("drain_seconds")
def test_the_drain_is_bounded(holding: Holding, small_model: Path) -> None:
    settings = {**PATIENT, "drain_seconds": 0}
    with (
        holding.server(model_path=small_model, threads=1, **settings) as server,
        ThreadPoolExecutor(1) as clients,
        holding(),
    ):
        with server.client() as client:
            running = clients.submit(long_request, server, 64)
            wait_for_depth(client, more_than=0)
        assert server.stop() == 1
        assert isinstance(running.exception(), httpx.HTTPError) or running.result().status_code >= 500
        assert "requests in flight that were cut off: 1" in server.describe()


# Sends SIGTERM inside a finaliser, where an exception that the handler raised would go no further.
SIGNAL_AT_IMPORT = """
import os, signal, sys

class Leaving:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["SIGNAL_AT"]:
            Leaving()

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(("frontends", "module"), [(0, "onnxruntime"), (1, "tessera.app.processes.supervisor")])
def test_a_signal_during_an_import_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frontends: int, module: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SIGNAL_AT_IMPORT)
    monkeypatch.setenv("SIGNAL_AT", module)
    with ServerProcess(wait=False, modules=tmp_path, frontends=frontends) as server:
        assert server.wait() == 0, server.describe()
        assert "stopping" in server.describe()


@pytest.mark.parametrize("delay", [0.0, 0.4, 0.9])
def test_a_signal_while_loading_ends_in_order(delay: float) -> None:
    with ServerProcess(wait=False) as server:
        time.sleep(delay)
        assert server.stop() == 0, server.describe()


def test_a_second_signal_ends_at_once(holding: Holding, small_model: Path) -> None:
    with (
        holding.server(model_path=small_model, threads=1, **PATIENT) as server,
        ThreadPoolExecutor(1) as clients,
        holding(),
    ):
        with server.client() as client:
            running = clients.submit(long_request, server, 64)
            wait_for_depth(client, more_than=0)
            server.process.send_signal(signal.SIGTERM)
            wait_for_drain(client)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 1, server.describe()
        assert isinstance(running.exception(), httpx.HTTPError) or running.result().status_code >= 500
        assert "requests in flight that were cut off: 1" in server.describe()


@pytest.mark.effect_of("port")
def test_a_taken_port_is_told_in_plain_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = tessera("serve", "--port", str(port))
    assert ended.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--model-path", "no/such/folder"), 1, "no/such/folder does not exist"),
        (("--models", "no/such/folder"), 1, "no/such/folder does not exist"),
        (("--host", "256.256.256.256"), 1, "cannot be used"),
        (("--port", "70000"), 2, "--port (TESSERA_PORT)"),
        (("--max-batch", "0"), 2, "--max-batch (TESSERA_MAX_BATCH)"),
        (("--admin", "true", "--admin-token-file", "no/such/file"), 2, "no/such/file cannot be read"),
        (("--admin", "true", "--admin-token-file", os.devnull, "--frontends", "2"), 2, "fewer than 16 characters"),
    ],
)
def test_a_start_that_cannot_work_says_why(flags: tuple[str, ...], code: int, words: str) -> None:
    ended = tessera("serve", *(() if "--port" in flags else ("--port", "0")), *flags)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_damaged_model_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    ended = tessera("serve", "--port", "0", "--model-path", str(tmp_path))
    assert ended.returncode == 1
    assert "tessera: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_classify_labels_files_without_a_server(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(JPEG)
    bad.write_bytes(JPEG[:200])
    fine = tessera("classify", str(good), "--json", "--top-k", "3", "--variant", "baseline")
    assert fine.returncode == 0, fine.stderr
    answer = json.loads(fine.stdout)
    assert answer["variant"] == "baseline"
    assert len(answer["results"][0]["predictions"]) == 3
    mixed = tessera("classify", str(good), str(bad), str(tmp_path / "none.jpg"))
    assert mixed.returncode == 1
    assert f"{good}: " in mixed.stdout
    assert f"{bad}: The image is truncated or damaged" in mixed.stderr
    assert "none.jpg" in mixed.stderr
    wrong = tessera("classify", str(good), "--variant", "fast")
    assert wrong.returncode == 1
    assert "baseline, optimised" in wrong.stderr


@pytest.mark.effect_of("cache_dir")
def test_models_are_listed_and_built(tmp_path: Path) -> None:
    listed = tessera("models", "list", "--cache-dir", str(tmp_path))
    assert listed.returncode == 0
    assert "resnet50-imagenette" in listed.stdout
    assert "at first start" in listed.stdout
    built = tessera("models", "build", "--cache-dir", str(CACHE))
    assert built.returncode == 0, built.stderr
    assert "baseline (fp32): " in built.stdout
    again = tessera("models", "list", "--cache-dir", str(CACHE))
    assert "at first start" not in again.stdout


@pytest.mark.parametrize("command", ["serve", "classify", "models"])
def test_every_command_explains_itself(command: str) -> None:
    shown = tessera(command, "--help")
    assert shown.returncode == 0
    assert "usage: tessera" in shown.stdout
    assert command in tessera("--help").stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    ended = tessera("fly")
    assert ended.returncode == 2
    assert "invalid choice" in ended.stderr


@requires_shared_data
@pytest.mark.effect_of("model_path", "models")
def test_another_model_is_served_by_pointing_at_its_folder(tmp_path: Path) -> None:
    photo = (SHARED_DATA / "imagenet-sample" / "000_tench.JPEG").read_bytes()
    folder = SHARED_DATA / "resnet50-imagenet"
    models = tmp_path / "models"
    models.mkdir()
    (models / "big").symlink_to(folder)
    with ServerProcess(model_path=folder) as server:
        with server.client() as client:
            for variant in ("baseline", "optimised"):
                answer = client.post(PATH, content=photo, headers={"X-Model-Variant": variant}).json()
                assert answer["results"][0]["predictions"][0]["index"] == 0
            assert client.get("/v1/models").json()["models"][0]["classes"] == 1000
        assert server.stop() == 0
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo)
    for flags in (("--models", str(folder)), ("--models", str(models), "--model-path", "big")):
        labelled = tessera("classify", str(file), "--json", "--top-k", "1", *flags)
        assert json.loads(labelled.stdout)["results"][0]["predictions"][0]["index"] == 0, labelled.stderr


@requires_shared_data
def test_several_models_ask_for_a_choice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(SHARED_DATA / "resnet50-imagenet")
    ended = tessera("serve", "--port", "0", "--models", str(tmp_path))
    assert ended.returncode == 1
    assert "several models" in ended.stderr
    assert "--model-path" in ended.stderr
