"""The load profiles of locust/locustfile.py, headless, from the repository's root as the README says."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import REPOSITORY, ServerProcess, environment

pytestmark = pytest.mark.alone

USERS = 8
SIZES = ("small", "medium", "large")


def run_locust(url: str, prefix: Path, *options: str, seconds: int = 6) -> subprocess.CompletedProcess[str]:
    """Run to the end; reports are in files that begin with `prefix`."""
    command = [sys.executable, "-m", "locust", "-f", "locust/locustfile.py", "--headless", "--only-summary"]
    command += ["--host", url, "-u", str(USERS), "-r", str(USERS), "-t", f"{seconds}s"]
    command += ["--csv", str(prefix), "--json-file", str(prefix), *options]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def rows(prefix: Path, table: str) -> list[dict[str, str]]:
    with open(f"{prefix}_{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def requests(prefix: Path) -> dict[str, int]:
    """Row of the final report -> requests. The CSV files can lack the last second."""
    return {row["name"]: row["num_requests"] for row in json.loads(Path(f"{prefix}.json").read_text())}


def samples(server: ServerProcess) -> dict[str, dict[str, float]]:
    """Sample name -> variant -> value."""
    with server.client() as client:
        text = client.get("/metrics").text
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "variant" in sample.labels and "le" not in sample.labels:
                found.setdefault(sample.name, {})[sample.labels["variant"]] = sample.value
    return found


@pytest.fixture(scope="module")
def loaded() -> Iterator[ServerProcess]:
    """A server that nobody but the profiles asks."""
    with ServerProcess(request_timeout_ms=600_000) as running:
        yield running
        assert running.stop() == 0, running.describe()


@pytest.mark.parametrize("profile", ["constant", "bursty"])
def test_a_profile_reaches_both_variants_without_a_failure_and_fills_batches(
    profile: str, loaded: ServerProcess, tmp_path: Path
) -> None:
    prefix = tmp_path / "load"
    before = samples(loaded)
    run = run_locust(loaded.url, prefix, "--load-profile", profile)
    after = samples(loaded)
    measured = {
        name: {variant: value - before[name].get(variant, 0) for variant, value in after[name].items()}
        for name in ("tessera_images_total", "tessera_batch_size_count")
    }

    assert run.returncode == 0, run.stdout + run.stderr
    assert rows(prefix, "failures") == []
    sent = requests(prefix)
    for variant in ("baseline", "optimised"):
        mine = {name: count for name, count in sent.items() if variant in name}
        assert set(mine) == {f"classify {variant} {size}" for size in SIZES}, sent
        assert measured["tessera_images_total"][variant] == sum(mine.values())
    batches = sum(measured["tessera_batch_size_count"].values())
    assert sum(sent.values()) / batches > 1.2, f"{sum(sent.values())} images ran in {batches:.0f} batches"

    crowd = {int(row["User Count"]) for row in rows(prefix, "stats_history") if int(row["User Count"]) > 0}
    assert USERS in crowd
    assert (USERS // 4 in crowd) == (profile == "bursty")


def test_refusals_of_a_full_queue_have_their_own_rows_and_are_no_failures(small_model: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "load"
    with ServerProcess(model_path=small_model, max_queue_images=1, max_images_per_request=1) as server:
        run = run_locust(server.url, prefix, seconds=4)
        assert server.stop() == 0, server.describe()
    assert run.returncode == 0, run.stdout + run.stderr
    sent = requests(prefix)
    assert sum(count for name, count in sent.items() if name.startswith("refused ")) > 0, sent
    assert sum(count for name, count in sent.items() if name.startswith("classify ")) > 0, sent


class WrongVariant(BaseHTTPRequestHandler):
    """A service with a routing fault: it is always the baseline that answers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        predictions = [{"rank": i + 1, "index": i, "label": f"l{i}", "probability": 0.3} for i in range(3)]
        timing = {"decode_ms": 1.0, "queue_ms": 1.0, "compute_ms": 1.0, "batch_size": 1}
        results = [{"predictions": predictions, "timing": timing}]
        body = json.dumps({"model": "m", "variant": "baseline", "results": results}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Model-Variant", "baseline")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def faulty_service() -> Iterator[str]:
    service = ThreadingHTTPServer(("127.0.0.1", 0), WrongVariant)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{service.server_address[1]}"
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


def test_an_answer_from_the_wrong_variant_is_a_failure(faulty_service: str, tmp_path: Path) -> None:
    prefix = tmp_path / "load"
    run = run_locust(faulty_service, prefix, seconds=2)
    assert run.returncode == 1
    failures = rows(prefix, "failures")
    assert {row["Name"] for row in failures} == {f"classify optimised {size}" for size in SIZES}, failures
    assert all("asked optimised, answered by" in row["Error"] for row in failures), failures


def test_a_folder_without_photos_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    run = run_locust("http://127.0.0.1:9", tmp_path / "load", "--images", str(tmp_path / "none"), seconds=2)
    assert run.returncode != 0
    assert "There are no photos in" in run.stderr
    assert "Traceback" not in run.stderr
