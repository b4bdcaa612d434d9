"""The short version of `make soak`: a mixture of everything for a few seconds; nothing is lost, nothing is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.mixture import CONNECTIONS, SEED
from tests.chaos.soak import soak
from tests.servers import ServerProcess
from tests.small_model import small_folder

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("frontends", [0, 2])
def test_mixed_load_loses_nothing_and_answers_right(frontends: int, tmp_path: Path) -> None:
    model = small_folder(tmp_path / "small", seed=SEED)
    with ServerProcess(frontends=frontends, model_path=model, max_connections=CONNECTIONS) as server:
        report, memory = soak(server, clients=8, requests=2_000, seconds=5, seed=3)
        assert report.problems == []
        assert report.seen["lost"] == 0
        assert report.seen["refused"] == 0
        assert all(report.seen[what] for what in ("right", "read", "turned down", "left", "dawdled")), report.seen
        assert len(memory.samples) > 3
        assert server.stop() == 0, server.describe()
