"""A real Prometheus scrapes a real server with the configuration of docker/."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import imagefiles
from tests.prometheus import DOCKER, Prometheus, promtool
from tests.servers import REPOSITORY, ServerProcess

DOCUMENT = REPOSITORY / "docs" / "metrics.md"

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="the programs prometheus and promtool are not installed (Debian package: prometheus)",
)


def post(server: ServerProcess, count: int) -> None:
    picture = imagefiles.jpeg()
    with server.client() as client:
        for number in range(count):
            headers = {"X-Model-Variant": ("baseline", "optimised")[number % 2]}
            assert client.post("/v1/classify", content=picture, headers=headers).status_code == 200
        assert client.post("/v1/classify", content=b"not an image").status_code == 415


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus after one scrape with some requests and another with more, so that rates exist."""
    with ServerProcess() as server:
        running = Prometheus(tmp_path_factory.mktemp("prometheus"), server.url.removeprefix("http://"))
        try:
            post(server, 4)
            running.wait_for("sum(tessera_images_total) == 4")
            post(server, 6)
            running.wait_for("sum(tessera_images_total) == 10")
            yield running
        finally:
            running.stop()
        assert server.stop() == 0, server.describe()


def documented_queries() -> list[str]:
    """Every query of docs/metrics.md."""
    section = DOCUMENT.read_text().partition("## Questions and queries")[2]
    return [code for code in re.findall(r"`([^`]+)`", section) if "tessera_" in code]


def test_the_server_is_a_target_that_is_up(prometheus: Prometheus) -> None:
    assert [value for _, value in prometheus.query('up{job="tessera"}')] == [1.0]
    (target,) = prometheus.get("targets")["activeTargets"]
    assert target["lastError"] == ""
    assert target["health"] == "up"


def test_counters_and_histograms_arrive_by_variant(prometheus: Prometheus) -> None:
    counted = prometheus.query('sum by (variant) (tessera_request_duration_seconds_count{outcome="ok"})')
    assert {labels["variant"]: value for labels, value in counted} == {"baseline": 5.0, "optimised": 5.0}
    images = prometheus.query("tessera_images_total")
    assert {labels["variant"]: value for labels, value in images} == {"baseline": 5.0, "optimised": 5.0}
    assert prometheus.query('sum(tessera_rejections_total{reason="unsupported_image"})')[0][1] == 2.0


def test_the_latency_quantile_is_a_number_for_each_variant(prometheus: Prometheus) -> None:
    quantiles = prometheus.query(
        "histogram_quantile(0.99, sum by (le, variant)"
        ' (rate(tessera_request_duration_seconds_bucket{outcome="ok"}[5m])))'
    )
    assert {labels["variant"] for labels, _ in quantiles} == {"baseline", "optimised"}
    assert all(0 < value < 30 and math.isfinite(value) for _, value in quantiles), quantiles


def test_there_are_queries_in_the_document() -> None:
    assert len(documented_queries()) >= 5


@pytest.mark.parametrize("query", documented_queries())
def test_each_query_of_the_document_is_answered(prometheus: Prometheus, query: str) -> None:
    # A comparison filters: empty while all is well, and as empty without its metric. "bool" tells the two apart, over
    # all labels: a reason for which nothing was refused yet has no series.
    if re.search(r" (==|>) ", query):
        query = re.sub(r" (==|>) ", r" \1 bool ", re.sub(r"\{[^}]*\}", "", query))
    found = prometheus.query(query)
    assert found
    assert all(math.isfinite(value) for _, value in found), found


def test_the_alerts_are_loaded_healthy_and_silent(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    give_up = time.monotonic() + 60
    while any(rule["health"] == "unknown" for rule in evaluated()) and time.monotonic() < give_up:
        time.sleep(0.25)
    assert {rule["name"]: (rule["health"], rule["state"]) for rule in evaluated()} == {
        "TesseraDown": ("ok", "inactive"),
        "TesseraRefusesRequests": ("ok", "inactive"),
        "TesseraFails": ("ok", "inactive"),
        "TesseraSlow": ("ok", "inactive"),
        "TesseraGuardTripped": ("ok", "inactive"),
        "TesseraRestarts": ("ok", "inactive"),
        "TesseraDeviceOut": ("ok", "inactive"),
    }


def test_promtool_finds_no_fault_in_the_committed_files() -> None:
    promtool("check", "config", str(DOCKER / "prometheus.yml"))


def test_promtool_finds_no_fault_in_the_metrics(server: ServerProcess) -> None:
    with server.client() as client:
        promtool("check", "metrics", text=client.get("/metrics").text)
