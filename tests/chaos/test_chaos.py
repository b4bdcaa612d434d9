"""The short version of `make chaos`: processes die under load; no answer is wrong, none is missing."""

from __future__ import annotations

import pytest

from tests.chaos.clients import Clients
from tests.chaos.killer import Killer
from tests.servers import ServerProcess

pytestmark = pytest.mark.alone


def test_processes_that_die_at_random_cost_nothing_but_clean_refusals() -> None:
    with ServerProcess(frontends=2, request_timeout_ms=30_000) as server:
        killer = Killer(server, seed=5)
        with Clients(server.url) as clients:
            killer.run(6.0, pause=(0.5, 1.5))
        report = clients.report
        assert report.problems == []
        assert report.seen["right"] > 0
        # A frontend takes its own connections with it, and nobody else's.
        assert report.seen["lost"] <= killer.frontends_ended * 8
        assert server.stop() == 0, server.describe()
