"""A service on Ascend: real server processes, the double behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tessera.engine.normalisation import Normalisation
from tests.ascend.double_builds import build
from tests.ascend.omfile import SOC, write_om
from tests.servers import ServerProcess
from tests.unit.models.tiny import MEAN, STD

PATH = "/v1/classify"
VARIANTS = ("baseline", "optimised")
NORMALISATION = Normalisation(MEAN, STD)


def converted(folder: Path, graph: Path, labels: tuple[str, ...], gears: tuple[int, ...]) -> Path:
    """A registry folder as `tessera models convert` leaves it, the .om files for the double."""
    folder.mkdir()
    write_om(graph, folder / "baseline.om", gears=gears)
    write_om(graph, folder / "optimised.om", gears=gears, pixels=NORMALISATION, output_type="float16")
    (folder / "model.onnx").write_bytes(graph.read_bytes())
    (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (folder / "model.toml").write_text(
        f'name = "converted"\nonnx = "model.onnx"\n[ascend]\nsoc = "{SOC}"\n'
        'baseline = "baseline.om"\noptimised = "optimised.om"\n',
        encoding="utf-8",
    )
    return folder


class Faults:
    """Breaks the double in a running server, through the file that it watches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")

    def set(self, text: str) -> None:
        made = self.path.with_suffix(".new")
        made.write_text(text)
        made.replace(self.path)


@contextmanager
def serving(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int = 1, **settings: object
) -> Iterator[tuple[ServerProcess, Faults]]:
    """A server on the double; when it has stopped, nothing may be left on the devices."""
    report, faults = tmp_path / "report.json", Faults(tmp_path / "faults")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build()))
    monkeypatch.setenv("ACL_DOUBLE_REPORT", str(report))
    monkeypatch.setenv("ACL_DOUBLE_DEVICES", str(devices))
    monkeypatch.setenv("ACL_DOUBLE_FAULTS", f"@{faults.path}")
    patient = {"request_timeout_ms": 600_000, **settings}
    with ServerProcess(backend="ascend", model_path=folder, **patient) as server:
        yield server, faults
        assert server.stop() == 0, server.describe()
    account = account_of(tmp_path)
    assert account["violations"] == account["finalised"] == 0, account
    assert not any(account["live"].values()), account


def account_of(folder: Path) -> dict[str, Any]:
    """What the double of a server that has ended counted."""
    account: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return account


def answers(client: httpx.Client, photo: bytes, variant: str = "optimised") -> httpx.Response:
    return client.post(PATH, content=photo, headers={"X-Model-Variant": variant}, params={"top_k": 5})
