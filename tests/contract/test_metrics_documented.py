"""docs/metrics.md and the metrics that exist are the same."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Metric

from tessera.app.observability.metrics import Metrics
from tessera.app.scheduling.ticket import Outcome
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.engine import DeviceStatus
from tessera.models.preprocessing.transform import Preprocessing

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*)\|", re.MULTILINE)


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> (type, labels), as the table has them."""
    rows = ROW.finditer(DOCUMENT.read_text())
    return {row["name"]: (row["type"], frozenset(re.findall(r"`(\w+)`", row["labels"]))) for row in rows}


def exposed_name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def existing() -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> (type, labels) of every metric after one use of each."""
    metrics = Metrics()
    variant = ServedVariant(
        name="v",
        path=Path("v.onnx"),
        backend="cpu",
        precision="int8",
        platform="tessera_onnx",
        isa="i",
        threads=1,
        macs=1,
        arena_bytes=0,
        peak=1.0,
        batch_seconds={},
    )
    metrics.describe_model(ServedModel("m", (), "input", "output", Preprocessing(), {"v": variant}))
    metrics.batch_finished("v", 1, 1.0, 1.0)
    metrics.request_finished(variant="v", outcome="ok", seconds=1.0)
    metrics.request_ran("v", [Outcome(None, None, 0.1, 0.2, 1)], input_seconds=0.1)
    metrics.rejected("queue_full")
    metrics.answered("v", "split")
    metrics.split_changed({"v": 1.0})
    metrics.shadow_ended("compared", 1)
    metrics.shadow_compared(distance=0.1, agreement=1.0, speed_up=3.0)
    metrics.guard_changed(tripped=True, event="tripped")
    metrics.watch_devices(lambda: {"v": (DeviceStatus(0, True, 0, "", 1, 2, {"cube": 0.5}),)})
    found = {}
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[exposed_name(family)] = (family.type, frozenset(labels))
    return found


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    assert existing() == documented()


def test_names_carry_base_units() -> None:
    for name, (kind, _) in documented().items():
        assert not re.search(r"(_ms|_milliseconds|_kb|_percent)(_|$)", name)
        if kind == "counter":
            assert name.endswith("_total")
