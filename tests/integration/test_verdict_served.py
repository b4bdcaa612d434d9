"""A calibration that failed its gate: what the log of a start and `/v1/models` say of it, alone and with frontends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera.engine.quantize import Gate
from tessera.models.quantise import quantise_model
from tests.servers import ServerProcess
from tests.unit.models.tiny import tiny_folder

IMPOSSIBLE = Gate(90.0, 1.0)


@pytest.mark.parametrize("frontends", [0, 1])
@pytest.mark.parametrize("accept", [True, False])
def test_a_failed_gate_is_warned_of_and_shown(tmp_path: Path, photos: Path, accept: bool, frontends: int) -> None:
    folder, cache = tiny_folder(tmp_path / "tiny"), tmp_path / "cache"
    _, report = quantise_model(folder, photos, cache=cache, gate=IMPOSSIBLE, fallback="none", accept=accept)
    with (
        ServerProcess(model_path=folder, cache_dir=cache, frontends=frontends, backend="cpu") as server,
        server.client() as client,
    ):
        (model,) = client.get("/v1/models").json()["models"]
        baseline, optimised = model["variants"]
        assert server.stop() == 0, server.describe()
    warnings = [line for line in server.log if " warning " in line and "variant=optimised" in line]
    assert len(warnings) == 1
    assert "failed its gate" in warnings[0]
    assert "failed its gate" in optimised["note"]
    assert "gate" not in baseline
    if accept:
        assert optimised["precision"] == "int8"
        verdict = report.verdict
        assert optimised["gate"] == {
            "met": False,
            "images": verdict.images,
            "sqnr": verdict.sqnr,
            "agreement": verdict.agreement,
            "least_sqnr": 90.0,
            "least_agreement": 1.0,
        }
    else:
        assert optimised["precision"] == "fp32"
        assert "gate" not in optimised


def test_a_gate_that_was_met_is_shown_without_a_warning(tmp_path: Path, photos: Path) -> None:
    folder, cache = tiny_folder(tmp_path / "tiny"), tmp_path / "cache"
    quantise_model(folder, photos, cache=cache, gate=Gate(1.0, 0.0))
    with ServerProcess(model_path=folder, cache_dir=cache, backend="cpu") as server, server.client() as client:
        (model,) = client.get("/v1/models").json()["models"]
        assert server.stop() == 0
    optimised = model["variants"][1]
    assert optimised["gate"]["met"] is True
    assert "note" not in optimised
    assert not [line for line in server.log if " warning " in line]
