"""Frontends and engine as processes: the same answers, whole metrics, and processes that may die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.clients import Clients, Report, pictures, probabilities, same
from tests.holding import Holding
from tests.processes import children, command_of, replaced
from tests.servers import ServerProcess
from tests.waiting import until

PATH = "/v1/classify"


@pytest.fixture(scope="module")
def processes(small_model: Path) -> Iterator[ServerProcess]:
    """Two frontends and an engine process."""
    with ServerProcess(frontends=2, model_path=small_model, request_timeout_ms=600_000) as running:
        yield running
        family = list(children(running).values())
        assert running.stop() == 0, running.describe()
        assert [pid for pid in family if "tessera-" in command_of(pid)] == []


def values(server: ServerProcess) -> dict[str, float]:
    """Sums over all labels, by sample name, as one frontend tells them."""
    sums: dict[str, float] = {}
    with server.client() as client:
        text = client.get("/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def waiting_spare(server: ServerProcess) -> int:
    """The process id of a spare that has imported everything."""

    def waits() -> bool:
        pid = children(server).get("spare", -1)
        return any("a spare engine process is ready" in line and line.endswith(f"pid={pid}") for line in server.log)

    until(waits)
    return children(server)["spare"]


def mapped_slots(pid: int) -> int:
    """How many frontends' shared memory a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return len({re.split(r"\s+", line)[4] for line in lines if "tessera-slots" in line})


def test_both_ways_give_the_same_answers(processes: ServerProcess, small_model: Path) -> None:
    files = [("file", (f"{n}.jpg", picture)) for n, picture in enumerate(pictures())]
    with ServerProcess(model_path=small_model) as server, processes.client() as many, server.client() as one:
        for variant in ("baseline", "optimised"):
            answers = [client.post(PATH, files=files, headers={"X-Model-Variant": variant}) for client in (many, one)]
            assert [answer.status_code for answer in answers] == [200, 200]
            got, expected = (probabilities(answer.content) for answer in answers)
            assert all(map(same, got, expected))
        described = [client.get("/v1/models").json() for client in (many, one)]
        assert described[0] == described[1]
        wrong = [client.post(PATH, content=b"not an image").json()["code"] for client in (many, one)]
        assert wrong == ["unsupported_image", "unsupported_image"]


@pytest.mark.effect_of("frontends")
def test_frontends_hold_no_engine(processes: ServerProcess) -> None:
    until(lambda: set(children(processes)) == {"engine", "spare", "frontend-0", "frontend-1"})
    for role in ("engine", "frontend-0", "frontend-1"):
        mapped = Path(f"/proc/{children(processes)[role]}/maps").read_text()
        assert ("onnxruntime" in mapped) is (role == "engine"), role
        assert "tessera-status" in mapped


def test_any_frontend_tells_the_metrics_of_all(processes: ServerProcess) -> None:
    before = values(processes)
    for picture in pictures() * 2:
        with processes.client() as fresh:  # a connection each, so both frontends get some
            assert fresh.post(PATH, content=picture).status_code == 200
    for _ in range(6):
        after = values(processes)
        assert after["tessera_images_total"] == before["tessera_images_total"] + 12
        name = "tessera_request_duration_seconds_count"
        assert after[name] == before.get(name, 0) + 12
        assert after["tessera_build_info"] == 1


def kill_under_load(server: ServerProcess, name: str) -> Report:
    """Kill a process of a server while clients ask it, until another has taken its place; what the clients saw."""
    victim = children(server)[name]
    with Clients(server.url, count=6) as clients:
        until(lambda: clients.report.seen["right"] > 6)
        os.kill(victim, signal.SIGKILL)
        until(replaced(server, name, victim))
        answered = clients.report.seen["right"]
        until(lambda: clients.report.seen["right"] > answered + 6)
    assert clients.report.problems == []
    return clients.report


def test_a_killed_frontend_costs_only_its_own_connections(processes: ServerProcess) -> None:
    before = values(processes)
    assert kill_under_load(processes, "frontend-0").seen["lost"] <= 6
    after = values(processes)
    assert after["tessera_process_restarts_total"] == before["tessera_process_restarts_total"] + 1
    counters = [name for name in before if name.endswith(("_total", "_count", "_bucket"))]
    assert [name for name in counters if after[name] < before[name]] == []
    until(lambda: mapped_slots(children(processes)["engine"]) == 2)


def test_a_killed_engine_costs_no_connection_and_no_wrong_answer(processes: ServerProcess) -> None:
    before = values(processes)
    assert kill_under_load(processes, "engine").seen["lost"] == 0
    after = values(processes)
    assert after["tessera_images_total"] >= before["tessera_images_total"] + 12


def test_a_hung_engine_is_noticed_and_replaced(processes: ServerProcess) -> None:
    victim = children(processes)["engine"]
    os.kill(victim, signal.SIGSTOP)
    with processes.client() as client:
        answer = client.post(PATH, content=pictures()[0])  # given to the hung one, run by the next
        assert answer.status_code in (200, 503)
        assert answer.status_code == 200 or "Retry-After" in answer.headers
    until(replaced(processes, "engine", victim))
    assert any("hangs: no heartbeat" in line for line in processes.log)


def test_a_hung_spare_is_noticed_before_it_is_needed(processes: ServerProcess) -> None:
    victim = waiting_spare(processes)
    os.kill(victim, signal.SIGSTOP)
    until(lambda: victim not in children(processes).values())
    assert any("a spare engine process hangs: no heartbeat" in line for line in processes.log)
    assert waiting_spare(processes) != victim


def test_a_spare_that_hangs_when_its_time_comes_does_not_hold_up_the_next(processes: ServerProcess) -> None:
    hung, engine, told = waiting_spare(processes), children(processes)["engine"], len(processes.log)
    os.kill(hung, signal.SIGSTOP)
    os.kill(engine, signal.SIGKILL)
    until(lambda: hung not in children(processes).values())
    until(replaced(processes, "engine", engine))
    assert any("the engine process hangs: no heartbeat for 3 s" in line for line in processes.log[told:])


def test_a_hung_frontend_is_noticed_and_its_connections_wait_for_the_next(processes: ServerProcess) -> None:
    victim, other = children(processes)["frontend-0"], children(processes)["frontend-1"]
    os.kill(victim, signal.SIGSTOP)

    def ask(picture: bytes) -> httpx.Response:
        with processes.client() as fresh:  # the kernel gives the hung one about every other connection
            return fresh.post(PATH, content=picture)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, pictures() * 2))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert [answer.status_code for answer in refused if "Retry-After" not in answer.headers] == []
    assert len(refused) < 12
    until(replaced(processes, "frontend-0", victim))
    assert children(processes)["frontend-1"] == other
    assert any("a frontend hangs: no heartbeat" in line for line in processes.log)


def test_the_end_is_orderly_across_processes(holding: Holding, small_model: Path) -> None:
    patient = {"request_timeout_ms": 600_000, "drain_seconds": 600}
    with (
        holding.server(model_path=small_model, frontends=2, threads=1, **patient) as server,
        ThreadPoolExecutor(2) as clients,
    ):

        def long_request(_: int) -> httpx.Response:
            with server.client(headers={"X-Model-Variant": "baseline"}) as client:
                return client.post(PATH, files=[("file", pictures()[0])] * 24)

        with holding(), server.client() as client:
            running = [clients.submit(long_request, n) for n in range(2)]
            until(lambda: values(server)["tessera_queue_depth_images"] > 24)
            family = list(children(server).values())
            server.process.send_signal(signal.SIGTERM)
            until(lambda: client.get("/readyz").json().get("code") == "shutting_down")
            refused = client.post(PATH, content=pictures()[0])
            assert (refused.json()["code"], refused.headers["Connection"]) == ("shutting_down", "close")
        assert [future.result().status_code for future in running] == [200, 200]
        assert server.wait() == 0, server.describe()
        assert [line for line in server.log if " error " in line] == []
        assert [pid for pid in family if "tessera-" in command_of(pid)] == []


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that want a core all the time."""
    code = "while True: pass"
    loops = [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.alone
def test_a_loaded_machine_is_no_reason_to_kill_anybody() -> None:
    with busy_processes(16), ServerProcess(frontends=2) as server:
        victim = waiting_spare(server), children(server)["engine"]
        with Clients(server.url, count=12) as clients:
            until(lambda: clients.report.seen["right"] > 12)
            os.kill(victim[1], signal.SIGKILL)
            until(replaced(server, "engine", victim[1]))
            assert children(server)["engine"] == victim[0], "the spare, at the first attempt"
        assert clients.report.problems == []
        assert [line for line in server.log if "hangs" in line] == []
        assert values(server)["tessera_process_restarts_total"] == 1


# Children get no further than this, as if their imports took very long.
HELD_UP = """
import sys, time
if any(word.startswith("tessera-") for word in sys.orig_argv):
    time.sleep(600)
"""


def test_no_process_outlives_a_killed_parent_by_its_imports(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HELD_UP)
    with ServerProcess(wait=False, frontends=2, modules=tmp_path) as server:
        until(lambda: len(children(server)) == 3)
        family = list(children(server).values())
        server.kill()
    until(lambda: not any("tessera-" in command_of(pid) for pid in family))


def test_no_process_outlives_a_killed_parent() -> None:
    with ServerProcess(wait=False, frontends=2) as server:
        until(lambda: len(children(server)) >= 3)
        family = list(children(server).values())
        server.kill()
    until(lambda: not any("tessera-" in command_of(pid) for pid in family))
