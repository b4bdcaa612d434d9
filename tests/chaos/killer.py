"""Kills and stops processes of a running service at random."""

from __future__ import annotations

import os
import random
import signal
import time

from tests.processes import children
from tests.servers import ServerProcess
from tests.waiting import until


class Killer:
    """What was done to a server.

    Args:
        server: The server.
        seed: Chooses whom it hits and when.
    """

    def __init__(self, server: ServerProcess, seed: int = 0) -> None:
        self._server = server
        self._chance = random.Random(seed)
        self.frontends_killed = 0
        self.frontends_stopped = 0
        self.engines_killed = 0
        self.engines_stopped = 0

    def run(self, seconds: float, pause: tuple[float, float] = (0.5, 3.0)) -> None:
        """Hit somebody now and then for `seconds`, then wait until the service is ready again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.hit()
            time.sleep(self._chance.uniform(*pause))
        self.wait_until_whole()

    def hit(self) -> None:
        """Kill somebody, or now and then stop a process, as if it hung."""
        alive = children(self._server)
        if not alive:
            return
        role = self._chance.choice(sorted(alive))
        stop = role != "spare" and self._chance.random() < 0.2
        try:
            os.kill(alive[role], signal.SIGSTOP if stop else signal.SIGKILL)
        except ProcessLookupError:
            return
        if role.startswith("frontend"):
            self.frontends_killed += not stop
            self.frontends_stopped += stop
        else:
            self.engines_killed += not stop
            self.engines_stopped += stop

    @property
    def frontends_ended(self) -> int:
        """How many took their connections with them: a stopped one is killed by the service."""
        return self.frontends_killed + self.frontends_stopped

    def wait_until_whole(self) -> None:
        """Wait until every process is there again and the service is ready."""
        with self._server.client() as client:
            until(lambda: client.get("/readyz").status_code == 200)
