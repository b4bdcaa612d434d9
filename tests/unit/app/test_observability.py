from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tessera.app.observability.logs import JsonFormatter, KeyValueFormatter, request_id
from tessera.app.observability.metrics import Metrics
from tessera.app.observability.utilisation import BusyRatio, ComputeUtilisation
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.models.preprocessing.transform import Preprocessing


def line(message: str, **fields: object) -> str:
    record = logging.LogRecord("tessera.x", logging.INFO, "x.py", 1, message, (), None)
    record.fields = fields
    return KeyValueFormatter().format(record)


def test_a_log_line_holds_its_fields_and_the_request_id() -> None:
    token = request_id.set("abc")
    try:
        written = line("request", status=200, milliseconds=1.23456, path="/v1/classify")
    finally:
        request_id.reset(token)
    assert written.endswith("info tessera.x request status=200 milliseconds=1.235 path=/v1/classify request_id=abc")


def test_a_client_cannot_forge_a_log_line() -> None:
    written = line("request", path='/x\n2026 error "forged" a=b', empty="")
    assert "\n" not in written
    assert r'path="/x\n2026 error \"forged\" a=b" empty=""' in written


def test_a_logged_exception_brings_its_traceback() -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        record = logging.LogRecord("tessera.x", logging.ERROR, "x.py", 1, "broken", (), sys.exc_info())
    assert "KeyError: 'lost'" in KeyValueFormatter().format(record)


@pytest.mark.parametrize("formatter", [KeyValueFormatter(), JsonFormatter()])
def test_what_clients_and_libraries_write_has_an_end(formatter: logging.Formatter) -> None:
    try:
        raise KeyError("k" * 100_000)
    except KeyError:
        record = logging.LogRecord("tessera.x", logging.ERROR, "x.py", 1, "member %s", ("m" * 100_000,), sys.exc_info())
    record.fields = {"path": "p" * 100_000, "status": 404}
    written = formatter.format(record)
    assert len(written) < 20_000
    assert "p" * 256 + "..." in written
    assert "404" in written


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_busy_ratio_over_its_window() -> None:
    clock = Clock()
    ratio = BusyRatio(window=10, clock=clock)
    assert ratio.value() == 0
    clock.now += 2
    ratio.observe(1.0)
    assert ratio.value() == pytest.approx(0.5)
    clock.now += 8
    assert ratio.value() == pytest.approx(0.1)
    clock.now += 1.5  # half of the run has left the window
    assert ratio.value() == pytest.approx(0.05)
    clock.now += 5
    assert ratio.value() == 0


def test_compute_utilisation_is_macs_over_peak() -> None:
    utilisation = ComputeUtilisation(macs=4_000_000_000, peak=1e12, batches=2)
    assert utilisation.value() == 0
    utilisation.observe(100, 0.001)
    utilisation.observe(16, 0.1)
    utilisation.observe(4, 0.06)
    assert utilisation.value() == pytest.approx(20 * 4e9 / 0.16 / 1e12)


def test_a_variant_whose_peak_is_known_has_a_utilisation() -> None:
    """From its own batches and its share of the engine's time, whatever else ran meanwhile."""
    fields = {"path": Path("v.onnx"), "backend": "cpu", "precision": "int8", "platform": "tessera_onnx", "isa": "i"}
    counts = {"threads": 1, "arena_bytes": 0, "batch_seconds": {}}
    known = ServedVariant(name="known", macs=4_000_000_000, peak=1e12, **fields, **counts)  # type: ignore[arg-type]
    unknown = replace(known, name="unknown", peak=None)
    metrics = Metrics()
    metrics.describe_model(
        ServedModel("m", (), "input", "output", Preprocessing(), {"known": known, "unknown": unknown})
    )
    metrics.batch_finished("known", 16, 0.2, 0.1)
    metrics.batch_finished("known", 4, 0.06, 0.06)
    metrics.batch_finished("unknown", 4, 0.06, 0.06)
    written = metrics.render("")[0].decode()
    (line,) = [line for line in written.splitlines() if line.startswith("tessera_compute_utilisation_ratio")]
    assert '"known"' in line
    assert float(line.split()[-1]) == pytest.approx(20 * 4e9 / 0.16 / 1e12)


def test_two_applications_do_not_share_metrics() -> None:
    first, second = Metrics(), Metrics()
    first.batch_finished("baseline", 3, 0.1, 0.1)
    assert b'tessera_images_total{variant="baseline"} 3.0' in first.render("")[0]
    assert b"tessera_images_total{" not in second.render("")[0]
