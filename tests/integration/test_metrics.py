"""Under load of 16 clients every documented metric moves, and batches form."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families

from tests import imagefiles
from tests.contract.test_metrics_documented import documented
from tests.holding import Holding
from tests.servers import ServerProcess
from tests.waiting import until


def scrape(server: ServerProcess) -> dict[str, float]:
    """Largest value per sample name, whatever its labels."""
    values: dict[str, float] = {}
    with server.client() as client:
        text = client.get("/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = max(values.get(sample.name, 0.0), sample.value)
    return values


def decoded(server: ServerProcess) -> float:
    """Images that wait for a batch, or have had one; of the stages, none is counted more often than decoding."""
    return scrape(server).get("tessera_stage_duration_seconds_count", 0.0)


def test_every_metric_is_non_zero_and_batches_form_under_load(holding: Holding) -> None:
    picture = imagefiles.jpeg()
    highest: dict[str, float] = {}
    done = threading.Event()

    with holding.server(request_timeout_ms=600_000) as server:

        def watch() -> None:
            while not done.is_set():
                for name, value in scrape(server).items():
                    highest[name] = max(highest.get(name, 0.0), value)
                done.wait(0.05)

        def load(number: int) -> None:
            with server.client(headers={"X-Model-Variant": ("baseline", "optimised")[number % 2]}) as client:
                assert client.post("/v1/classify", content=picture).status_code == 200

        with server.client() as client:
            assert client.post("/v1/classify", content=b"not an image").status_code == 415
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(16) as clients:
                for turn in range(1, 4):
                    with holding():
                        asked = [clients.submit(load, number) for number in range(16)]
                        until(lambda turn=turn: decoded(server) == 16 * turn)
                    for request in asked:
                        request.result()
        finally:
            done.set()
            watcher.join()
        with server.client() as client:
            text = client.get("/metrics").text
        assert server.stop() == 0

    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    images = sum(sample.value for sample in samples if sample.name == "tessera_images_total")
    batches = sum(sample.value for sample in samples if sample.name == "tessera_batch_size_count")
    assert images == 16 * 3
    assert images / batches > 4, f"mean batch size {images / batches:.1f}"
    for name, (kind, _) in documented().items():
        if name.startswith("tessera_device_"):  # of accelerators: tests/ascend/test_serving.py
            assert name not in highest
            continue
        if name.startswith(("tessera_shadow", "tessera_guard")) or name == "tessera_process_restarts_total":
            continue  # off by default (test_experiments.py), or moves only when a process has died (tests/chaos)
        sample_name = f"{name}_count" if kind in ("histogram", "summary") else name
        assert highest.get(sample_name, 0) > 0, name


def test_the_openmetrics_format_is_offered(server: ServerProcess) -> None:
    with server.client() as client:
        answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
