"""The whole service on Ascend: real server processes, real clients, the double behind them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera import engine
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.registry import BUNDLED, open_model
from tests.ascend.double_builds import build
from tests.ascend.omfile import half_normalisation
from tests.ascend.service import NORMALISATION, VARIANTS, answers, converted, serving
from tests.imagefiles import jpeg
from tests.servers import CACHE, ServerProcess
from tests.waiting import until

FAULTS = (
    "memcpy=207001*1",
    "gear=145013*1",
    "execute=507015*1",
    "submit=507011*1",
    "sync=507046*1",
    "lost=507010*2",
)


@pytest.mark.effect_of("backend")
def test_resnet50_serves_both_variants_to_sixteen_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = open_model(BUNDLED, cache=CACHE)
    folder = converted(tmp_path / "resnet50", bundled.variants["baseline"].path, bundled.labels, (1, 2))
    photos = [jpeg(200 + 20 * number, 240) for number in range(8)]
    pixels = np.empty((len(photos), *bundled.preprocessing.shape), np.uint8)
    for photo, row in zip(photos, pixels, strict=True):
        ImageDecoder(bundled.preprocessing, max_pixels=1 << 24).decode(photo, row)
    with engine.load(bundled.variants["baseline"].path, backend="onnxruntime") as session:
        logits = {
            "baseline": session.run(pixels),
            "optimised": session.run(half_normalisation(NORMALISATION).apply(pixels)),
        }
    with serving(folder, tmp_path, monkeypatch, max_batch=4) as (server, _):
        with server.client() as client:
            described = client.get("/v1/models").json()["models"][0]["variants"]
            refusal = client.post("/v1/classify?explain=1", content=photos[0])
        assert (refusal.status_code, refusal.json()["code"]) == (422, "unexplainable")
        assert [entry["explains"] for entry in described] == [False, False]
        assert [(entry["name"], entry["backend"]) for entry in described] == [(v, "ascend") for v in VARIANTS]
        assert 3.5e9 < described[0]["macs_per_image"] < 4.5e9

        def ask(number: int) -> dict[str, Any]:
            with server.client() as client:
                answer = answers(client, photos[number // 2], VARIANTS[number % 2])
            assert answer.status_code == 200, answer.text
            result: dict[str, Any] = answer.json()["results"][0]
            return result

        with ThreadPoolExecutor(16) as clients:
            results = list(clients.map(ask, range(16)))
    assert max(result["timing"]["batch_size"] for result in results) > 1
    for number, result in enumerate(results):
        row = logits[VARIANTS[number % 2]][number // 2]
        expected = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert result["predictions"][0]["index"] == int(row.argmax())
        for prediction in result["predictions"]:
            assert prediction["probability"] == pytest.approx(expected[prediction["index"]], abs=0.01)


def test_every_fault_gives_a_clean_error_and_the_service_recovers(
    small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(small_service, tmp_path, monkeypatch) as (server, faults), server.client() as client:
        before = answers(client, jpeg()).json()["results"][0]["predictions"]
        for fault in FAULTS:
            faults.set(fault)
            logged = len(server.log)
            answer = answers(client, jpeg())
            assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1"), (fault, answer.text)
            assert set(answer.json()) == {"error", "code", "request_id"}
            assert answer.json()["code"] == "device_failed"
            assert "Traceback" not in answer.text
            code = fault.partition("=")[2][:6]
            until(lambda code=code, logged=logged: any(code in line for line in server.log[logged:]))  # type: ignore[misc]
            until(lambda: answers(client, jpeg()).status_code == 200)
            assert answers(client, jpeg()).json()["results"][0]["predictions"] == before
            assert answers(client, jpeg(), "baseline").status_code == 200
        assert any("CANN says" in line for line in server.log)
        assert not any("Traceback" in line for line in server.log), "a failed device says what happened in one line"
        metrics = client.get("/metrics").text
        assert 'tessera_device_healthy{device="0",variant="optimised"} 1.0' in metrics
        left = sum(fault.partition("=")[2].startswith("5") for fault in FAULTS)
        assert f'tessera_device_failures_total{{device="0",variant="optimised"}} {left:.1f}' in metrics
        assert 'tessera_device_failures_total{device="0",variant="baseline"} 0.0' in metrics
        for series in ('memory_bytes{device="0",state="used"}', 'utilisation_ratio{device="0",unit="cube"}'):
            assert f"tessera_device_{series}" in metrics


def test_clients_do_not_notice_one_lost_device_of_two(
    small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(small_service, tmp_path, monkeypatch, devices=2) as (server, faults):
        faults.set("lost@0=507010")

        def ask(number: int) -> int:
            with server.client() as client:
                return answers(client, jpeg(200 + number), VARIANTS[number % 2]).status_code

        with ThreadPoolExecutor(8) as clients:
            assert set(clients.map(ask, range(40))) == {200}
        assert any("device 0 leaves the rotation" in line for line in server.log)
        faults.set("")


@pytest.mark.parametrize("fault", ["malloc=207001+2", "output_size=1"])
def test_what_cannot_be_loaded_ends_the_start_with_the_reason(
    fault: str, small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build()))
    monkeypatch.setenv("ACL_DOUBLE_REPORT", str(tmp_path / "report.json"))
    monkeypatch.setenv("ACL_DOUBLE_FAULTS", fault)
    with ServerProcess(backend="ascend", model_path=small_service, wait=False) as server:
        assert server.wait() != 0
    reason = "come to" if fault.startswith("output") else fault.split("=")[1].split("+")[0]
    assert any(reason in line for line in server.log), server.describe()
    assert not any("Traceback" in line for line in server.log), server.describe()
    assert not any(json.loads((tmp_path / "report.json").read_text())["live"].values())
