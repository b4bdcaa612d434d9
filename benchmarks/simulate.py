"""Simulates the scheduler against other batching rules and draws the comparison: `python -m benchmarks.simulate`.

The CPU's batch times are those that `docs/performance.md` gives for two threads; see `benchmarks/policies.py` for the
machine and `docs/scheduling.md` for what it shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.arrivals import bursty, poisson, steps
from benchmarks.policies import VARIANT, Fifo, Policy, Request, Server, Tessera
from benchmarks.simulation import Result, simulate

# Seconds of a batch of 1 to 16: measured at 1 and 16 on two threads of the reference CPU, a line between.
_CPU = [9.92e-3 + (151.03e-3 - 9.92e-3) * (size - 1) / 15 for size in range(1, 17)]
# A device where a batch of 16 costs 3.5 times as much as one image, as on accelerators: assumed, not measured.
_DEVICE = [2e-3 + 0.4e-3 * size for size in range(1, 17)]
CPU = Server({VARIANT: _CPU}, decode_seconds=2e-3)
DEVICE = Server({VARIANT: _DEVICE}, decode_seconds=0.2e-3)
TIMEOUTS = {"CPU": 0.25, "device": 0.05}
SERVERS = {"CPU": CPU, "device": DEVICE}
# Two batches in flight, a quarter of whose time is spent on copying: on one device, and on each of two.
PIPELINES = {
    "1 x 2 in flight": replace(DEVICE, in_flight=2, copying=0.25),
    "2 x 2 in flight": replace(DEVICE, devices=2, in_flight=2, copying=0.25),
}

LOADS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0)
STREAMS = {"Poisson": poisson, "bursty": bursty}


def policies(server: Server) -> dict[str, Callable[[], Policy]]:
    """The rule of this service and its rivals, by name."""
    return {
        "Tessera": lambda: Tessera(server),
        "no batching": lambda: Fifo(1),
        "FIFO, take all": lambda: Fifo(server.max_batch),
        "5 ms timer": lambda: Fifo(server.max_batch, 0.005),
        "10 ms timer": lambda: Fifo(server.max_batch, 0.01),
    }


def at_load(
    server: Server, policy: Policy, stream: str, load: float, timeout: float, images: int, seed: int = 1
) -> Result:
    """Simulate `load` times the server's capacity for as long as about `images` are answered."""
    rate = load * server.capacity()
    seconds = images / min(rate, server.capacity())
    return simulate(server, policy, STREAMS[stream](rate, seconds, timeout, seed), seed)


def stepping(server: Server, timeout: float, seconds: float) -> list[Request]:
    """Half the capacity, then three times it, then half of it again, for `seconds` each."""
    capacity = server.capacity()
    return steps([(seconds, 0.5 * capacity), (seconds, 3 * capacity), (seconds, 0.5 * capacity)], timeout, seed=1)


def main() -> None:
    """Print the table and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6000, help="answers per point (default 6000)")
    parser.add_argument("--docs", type=Path, help="folder for the pictures (needs matplotlib)")
    parser.add_argument("--pipelines", action="store_true", help="devices with two batches in flight instead")
    arguments = parser.parse_args()
    if arguments.docs is not None:
        from benchmarks.drawing import draw_loads, draw_steps  # before the long run, should matplotlib be missing

    table: dict[tuple[str, str, str], list[Result]] = {}
    print("machine         stream   rule             load  goodput  p50 ms  p99 ms  refused  batch  in time")
    for machine, server in (PIPELINES if arguments.pipelines else SERVERS).items():
        for stream in STREAMS:
            for rule, make in policies(server).items():
                for load in LOADS:
                    timeout = TIMEOUTS.get(machine, TIMEOUTS["device"])
                    result = at_load(server, make(), stream, load, timeout, arguments.images)
                    table.setdefault((machine, stream, rule), []).append(result)
                    print(
                        f"{machine:16}{stream:9}{rule:16}{load:5.0%}{result.goodput() / server.capacity():9.2f}"
                        f"{result.latency(50) * 1e3:8.1f}{result.latency(99) * 1e3:8.1f}{result.refused():9.1%}"
                        f"{np.mean(result.sizes):7.1f}{result.kept():9.1%}"
                    )
    if arguments.docs is not None and not arguments.pipelines:
        draw_loads(table, arguments.docs / "scheduling-loads.svg")
        runs = {rule: simulate(CPU, make(), stepping(CPU, 0.25, 10)) for rule, make in policies(CPU).items()}
        draw_steps(runs, CPU.capacity(), 10, arguments.docs / "scheduling-steps.svg")


if __name__ == "__main__":
    main()
