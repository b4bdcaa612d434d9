"""What an operator does and sees: configuration, logs, traces, admin verbs, loading under load, the end."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests import imagefiles
from tests.collector import Collector
from tests.processes import children, replaced
from tests.servers import ServerProcess
from tests.small_model import small_folder
from tests.waiting import until

PATH = "/v1/classify"
JPEG = imagefiles.jpeg(64, 48)
TOKEN = "correct-horse-battery-staple"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
VARIANTS = ("baseline", "optimised")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def watched(collector: Collector, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that is configured by a file alone."""
    place = tmp_path_factory.mktemp("configuration")
    (place / "token").write_text(TOKEN + "\n")
    (place / "tessera.toml").write_text(
        f"model_path = {json.dumps(str(folder))}\nlog_format = 'json'\notlp_endpoint = '{collector.url}'\n"
        f"rate_limit = 0.01\nrate_burst = 3\ntrusted_proxies = '127.0.0.1'\nadmin = true\n"
        f"admin_token_file = {json.dumps(str(place / 'token'))}\nlame_duck_seconds = 1.5\nthreads = 1\n"
    )
    with ServerProcess("--config", str(place / "tessera.toml")) as running:
        yield running
        assert running.stop() == 0, running.describe()


def some_client(server: ServerProcess, number: int, **headers: str) -> httpx.Client:
    """A client that the trusted proxy vouches for, so that it has a bucket of its own."""
    return server.client(headers={"X-Forwarded-For": f"10.0.0.{number}", **headers})


@pytest.mark.effect_of("rate_limit", "rate_burst", "trusted_proxies", "config")
def test_each_client_has_its_own_bucket(watched: ServerProcess) -> None:
    with some_client(watched, 1) as greedy, some_client(watched, 2) as modest:
        assert [greedy.get("/v1/models").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        refused = greedy.post(PATH, content=JPEG)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) > 10
        assert greedy.get("/healthz").status_code == greedy.get("/metrics").status_code == 200
        assert 'tessera_rejections_total{reason="rate_limited"} 3.0' in greedy.get("/metrics").text
        assert modest.post(PATH, content=JPEG).status_code == 200


@pytest.mark.effect_of("log_format")
def test_every_log_line_is_a_json_object(watched: ServerProcess) -> None:
    with some_client(watched, 3) as client:
        client.post(PATH, content=JPEG, headers={"X-Request-ID": "find-me"})
    until(lambda: any("find-me" in line for line in watched.log))
    lines = [json.loads(line) for line in watched.log if "opentelemetry" not in line]
    (line,) = [line for line in lines if line.get("request_id") == "find-me"]
    assert line["event"] == "request"
    assert (line["method"], line["path"], line["status"], line["outcome"]) == ("POST", PATH, 200, "ok")
    assert isinstance(line["milliseconds"], float)
    assert all({"time", "level", "logger", "event"} <= line.keys() for line in lines)


@pytest.mark.effect_of("otlp_endpoint")
def test_a_request_is_traced_with_its_stages_under_the_callers_span(
    watched: ServerProcess, collector: Collector
) -> None:
    header = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "traced"}
    with some_client(watched, 4) as client:
        assert client.post(PATH, content=JPEG, headers=header).status_code == 200
    until(lambda: len(collector.of_trace(TRACE)) == 6)
    spans = collector.of_trace(TRACE)
    root = spans.pop(f"POST {PATH}")
    assert root.parent_span_id.hex() == PARENT
    attributes = {entry.key: entry.value for entry in root.attributes}
    assert attributes["tessera.request_id"].string_value == "traced"
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["tessera.variant"].string_value == "optimised"
    assert set(spans) == {"read body", "decode", "queue", "compute", "postprocess"}
    assert all(span.parent_span_id == root.span_id for span in spans.values())
    for span in spans.values():
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    until(lambda: any(f'"trace_id": "{TRACE}"' in line for line in watched.log))


def test_what_the_caller_does_not_sample_is_not_sent(watched: ServerProcess, collector: Collector) -> None:
    unsampled, sampled = "a" * 32, "b" * 32
    with some_client(watched, 5) as client:
        for trace, flag in ((unsampled, "00"), (sampled, "01")):
            client.post(PATH, content=b"no image", headers={"traceparent": f"00-{trace}-{PARENT}-{flag}"})
    until(lambda: len(collector.of_trace(sampled)) == 2)
    assert collector.of_trace(unsampled) == {}


@pytest.mark.effect_of("admin", "admin_token_file")
def test_admin_verbs_want_the_token(watched: ServerProcess) -> None:
    wrong = ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN]
    paths = ["/v1/admin/variants/baseline/unload", "/v2/repository/models/small-baseline/unload"]
    for number, path in enumerate(paths):
        for step, header in enumerate(wrong):
            with some_client(watched, 10 + number * 10 + step) as client:
                answer = client.post(path, headers={"Authorization": header})
                assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert TOKEN not in answer.text
    with some_client(watched, 40) as client:
        assert set(client.get("/readyz").json()["variants"]) == {"baseline", "optimised"}
        assert client.post("/v1/admin/variants/baseline/load", headers=ADMIN).json()["loaded"] is True
        assert client.post("/v1/admin/variants/none/load", headers=ADMIN).status_code == 404
    assert not any(TOKEN in line for line in watched.log)


@pytest.mark.effect_of("lame_duck_seconds")
@pytest.mark.parametrize("frontends", [0, 1])
def test_a_lame_duck_is_not_ready_and_still_answers(frontends: int, folder: Path) -> None:
    with ServerProcess(model_path=folder, lame_duck_seconds=600, frontends=frontends, threads=1) as server:
        with server.client() as client:
            server.process.send_signal(signal.SIGTERM)
            until(lambda: client.get("/readyz").status_code == 503)
            assert client.get("/readyz").json()["code"] == "shutting_down"
            assert client.get("/v2/health/ready").status_code == 503
            answer = client.post(PATH, content=JPEG)
            assert answer.status_code == 200, answer.text
            assert client.get("/healthz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0, server.describe()


def test_a_lame_duck_ends_by_itself(folder: Path) -> None:
    with ServerProcess(model_path=folder, lame_duck_seconds=0.2, threads=1) as server:
        assert server.stop() == 0, server.describe()


@pytest.mark.effect_of("admin_token")
@pytest.mark.parametrize("frontends", [0, 2])
def test_variants_come_and_go_without_a_failed_request(frontends: int, tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "small")
    seen: Counter[tuple[str, int, str]] = Counter()
    over = Event()

    def ask(variant: str) -> None:
        with server.client(headers={"X-Model-Variant": variant}) as client:
            while not over.is_set():
                answer = client.post(PATH, content=JPEG)
                seen[variant, answer.status_code, answer.json().get("code", "")] += 1

    with ServerProcess(model_path=folder, admin="true", admin_token=TOKEN, frontends=frontends, threads=1) as server:
        with server.client(headers=ADMIN) as admin, ThreadPoolExecutor(4) as clients:
            before = admin.post(PATH, content=JPEG).json()["results"][0]["predictions"]
            asking = [clients.submit(ask, variant) for variant in ("baseline", "optimised") * 2]
            small_folder(folder, seed=1)
            try:
                for variant in ("optimised", "baseline", "optimised"):
                    assert admin.post(f"/v1/admin/variants/{variant}/reload").status_code == 200
                after = admin.post(PATH, content=JPEG).json()["results"][0]["predictions"]
                assert after != before, "the new weights answer"
                assert {status for _, status, _ in seen} == {200}

                (folder / "weights.safetensors").write_bytes(b"damaged")
                failed = admin.post("/v1/admin/variants/optimised/reload")
                assert (failed.status_code, failed.json()["code"]) == (409, "load_failed")
                (folder / "labels.txt").write_text("other\n" * 5)
                small_folder(folder, seed=1)
                (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
                assert admin.post("/v1/admin/variants/optimised/reload").status_code == 409
                assert admin.post(PATH, content=JPEG).json()["results"][0]["predictions"] == after
                assert {status for _, status, _ in seen} == {200}
                small_folder(folder, seed=1)

                assert admin.post("/v1/admin/variants/baseline/unload").json()["loaded"] is False
                assert admin.post("/v1/admin/variants/baseline/unload").json()["loaded"] is False
                until(lambda: seen["baseline", 503, "model_unavailable"] > 0)
                assert admin.post("/v1/admin/variants/baseline/reload").status_code == 503
                assert admin.get("/readyz").json()["variants"] == ["optimised"]
                models = {v["name"]: v["loaded"] for v in admin.get("/v1/models").json()["models"][0]["variants"]}
                assert models == {"baseline": False, "optimised": True}
                assert admin.post("/v1/admin/variants/baseline/load").json()["loaded"] is True
                answered = seen["baseline", 200, ""]
                until(lambda: seen["baseline", 200, ""] > answered)
            finally:
                over.set()
            for future in asking:
                future.result()
        assert {key for key in seen if key[1] != 200} == {("baseline", 503, "model_unavailable")}
        assert server.stop() == 0, server.describe()


def test_a_restarted_engine_process_comes_back_in_the_state_in_which_it_was(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "small")
    settings = {"model_path": folder, "admin": "true", "admin_token": TOKEN, "frontends": 2, "threads": 1}
    with ServerProcess(**settings) as server, server.client(headers=ADMIN) as admin:

        def answers() -> list[object]:
            asked = [admin.post(PATH, content=JPEG, headers={"X-Model-Variant": name}) for name in VARIANTS]
            return [a.json()["results"][0]["predictions"] if a.status_code == 200 else a.json()["code"] for a in asked]

        def lose_engine() -> None:
            engine = children(server)["engine"]
            os.kill(engine, signal.SIGKILL)
            until(replaced(server, "engine", engine))
            until(lambda: "not_ready" not in answers())

        first = answers()
        small_folder(folder, seed=1)
        assert admin.post("/v1/admin/variants/optimised/reload").status_code == 200
        mixed = answers()
        assert [new == old for new, old in zip(mixed, first, strict=True)] == [True, False]
        (folder / "weights.safetensors").write_bytes(b"damaged")
        lose_engine()
        assert answers() == mixed, "neither what the folder holds now, nor what it held at first"

        assert admin.post("/v1/admin/variants/baseline/unload").status_code == 200
        lose_engine()
        assert answers() == ["model_unavailable", mixed[1]]
        assert admin.get("/readyz").json()["variants"] == ["optimised"]
        assert admin.post("/v1/admin/variants/optimised/unload").status_code == 200
        lose_engine()
        assert answers() == ["model_unavailable", "model_unavailable"]
        small_folder(folder, seed=1)
        for name in VARIANTS:
            assert admin.post(f"/v1/admin/variants/{name}/load").status_code == 200
        assert answers()[1] == mixed[1]
        assert answers()[0] not in (first[0], "model_unavailable")
        assert server.stop() == 0, server.describe()
