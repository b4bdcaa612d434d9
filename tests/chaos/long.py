"""`make chaos`: minutes of random kill -9 under load. Exit code 0 when no answer was wrong, missing or unclean."""

from __future__ import annotations

import argparse
import sys

import httpx

from tests.chaos.clients import Clients
from tests.chaos.killer import Killer
from tests.servers import ServerProcess


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--frontends", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with ServerProcess(frontends=chosen.frontends, log_level="warning") as server:
        killer = Killer(server, chosen.seed)
        with Clients(server.url, chosen.clients, chosen.seed) as clients:
            try:
                killer.run(chosen.minutes * 60, pause=(3.0, 10.0))  # so that the service is up most of the time
            except (httpx.HTTPError, AssertionError) as error:
                clients.report.note("gone", f"{error}; last lines of its log:\n{server.describe()}")
        code = server.stop()
    report = clients.report
    print(f"killed: {killer.frontends_killed} frontends, {killer.engines_killed} engines; ", end="")
    print(f"stopped: {killer.frontends_stopped} frontends, {killer.engines_stopped} engines")
    print("requests: " + ", ".join(f"{count} {what}" for what, count in sorted(report.seen.items())))
    print(f"exit code of the service: {code}")
    for problem in report.problems[:20]:
        print(problem)
    lost_in_excess = report.seen["lost"] > killer.frontends_ended * chosen.clients
    return 1 if report.problems or lost_in_excess or code != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
