"""The dashboard and the alerts: every expression is answered by a real Prometheus that scrapes a loaded service."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.app.errors import RequestError
from tests import imagefiles
from tests.prometheus import DOCKER, Prometheus, promtool
from tests.servers import ServerProcess

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="the programs prometheus and promtool are not installed (Debian package: prometheus)",
)
DASHBOARD = json.loads((DOCKER / "grafana" / "tessera.json").read_text())
RULES = [rule for group in yaml.safe_load((DOCKER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


def expressions() -> dict[str, str]:
    """Everything that is asked, as Grafana would ask for all instances."""
    asked = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
    asked |= {rule["alert"]: re.sub(r" (==|>) \d+$", "", rule["expr"].strip()) for rule in RULES}
    return {name: text.replace("$__rate_interval", "1m").replace("$instance", ".*") for name, text in asked.items()}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus after scrapes of a service with every feature on, before and after requests of every kind."""
    with ServerProcess(split="optimised=50,baseline=50", shadow_share=1, guard_agreement=0.5) as server:
        running = Prometheus(tmp_path_factory.mktemp("prometheus"), server.url.removeprefix("http://"))
        try:
            with server.client() as client:
                for turn in range(1, 3):
                    for variant in ("baseline", "optimised"):
                        for _ in range(4):
                            headers = {"X-Model-Variant": variant}
                            answer = client.post("/v1/classify", content=imagefiles.jpeg(), headers=headers)
                            assert answer.status_code == 200
                    assert client.post("/v1/classify", content=b"not an image").status_code == 415
                    running.wait_for(f'tessera_rejections_total{{reason="unsupported_image"}} == {turn}')
            running.wait_for("tessera_shadow_speedup_ratio > 0")
            yield running
        finally:
            running.stop()
        assert server.stop() == 0, server.describe()


@needs_prometheus
@pytest.mark.alone
@pytest.mark.parametrize("name", expressions())
def test_every_expression_has_an_answer(prometheus: Prometheus, name: str) -> None:
    expression = expressions()[name]
    if "tessera_device_" in expression:  # which has no series on a CPU
        assert prometheus.query(expression) == []
        return
    # A selection of codes is empty while none of them has come.
    found = prometheus.query(re.sub(r'(reason|outcome)=~"[^"]*",? ?', "", expression))
    assert found
    assert any(math.isfinite(value) for _, value in found), found


@needs_prometheus
def test_each_alert_fires_for_who_is_ill_and_not_for_who_is_well() -> None:
    promtool("test", "rules", str(DOCKER / "alerts.test.yml"))
    tests = yaml.safe_load((DOCKER / "alerts.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in RULES}


def test_codes_that_alerts_name_exist() -> None:
    codes = {error.code for error in _errors(RequestError)}
    for rule in RULES:
        for named in re.findall(r'(?:reason|outcome)=~"([^"]*)"', rule["expr"]):
            assert set(named.split("|")) <= codes, rule["alert"]


def test_panels_have_names_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    places = [
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert {x for x, _ in places} == set(range(24))


def test_grafana_finds_the_dashboard_and_its_data() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    mounted = {Path(volume.split(":")[0]).name: volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == mounted["tessera.json"]
    (provider,) = yaml.safe_load((DOCKER / "grafana" / "dashboards.yaml").read_text())["providers"]
    assert provider["options"]["path"] == str(Path(mounted["tessera.json"]).parent)
    (source,) = yaml.safe_load((DOCKER / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    used = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert used == {source["uid"]}


def _errors(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    yield kind
    for further in kind.__subclasses__():
        yield from _errors(further)
