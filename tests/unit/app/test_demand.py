"""The demand on the engine, against the truth of a simulated load."""

from __future__ import annotations

import pytest

from benchmarks.arrivals import poisson
from benchmarks.simulate import SERVERS, VARIANT
from tessera.app.scheduling.demand import WINDOW, Demand
from tessera.app.scheduling.latency import BatchStatistics
from tessera.app.scheduling.snapshot import Snapshot, VariantSnapshot


class Clock:
    now = 1000.25

    def __call__(self) -> float:
        return self.now


def engine(parallel: int = 1, **batches: dict[int, float]) -> Snapshot:
    """What a batch of so many images takes, by variant."""
    tables = {
        name: VariantSnapshot({}, 0.0, {size: BatchStatistics(1, mean, mean, mean) for size, mean in table.items()})
        for name, table in batches.items()
    }
    return Snapshot(tables, 0.0, 0.0, parallel)


@pytest.mark.parametrize("load", [0.1, 0.8, 1.0, 2.5, 10.0])
@pytest.mark.parametrize("machine", SERVERS)
def test_it_is_the_load_that_there_is_whatever_is_refused(machine: str, load: float) -> None:
    server, clock = SERVERS[machine], Clock()
    demand, start = Demand(clock), clock.now
    rate = load * server.capacity()
    for request in poisson(rate, seconds=1.5 * WINDOW, seed=1):
        clock.now = start + request.arrival
        demand.count(VARIANT, request.images)
    table = dict(enumerate(server.batch_seconds[VARIANT], start=1))
    assert demand.ratio(engine(server.devices, **{VARIANT: table})) == pytest.approx(load, rel=0.1)


def test_who_is_refused_unread_counts_as_others_do() -> None:
    clock = Clock()
    demand = Demand(clock)
    demand.count_unread("optimised")
    for _ in range(9):
        demand.count("optimised", 4)
    demand.count_unread("optimised")
    clock.now += 10
    assert demand.ratio(engine(optimised={1: 0.5, 16: 1.6})) == pytest.approx((1 + 36 + 4) * 0.1 / 10)


def test_decoding_takes_its_share_of_the_cores_it_has_with_the_engine() -> None:
    clock = Clock()
    demand = Demand(clock)
    for _ in range(10):
        demand.count("optimised", 1)
    demand.count("optimised", 20, files=False)
    demand.count_decoded(4, 0.8)
    clock.now += 10
    table = engine(optimised={16: 1.6})
    assert demand.ratio(table, cores=2) == pytest.approx((30 * 0.1 + 10 * 0.2 / 2) / 10)
    assert demand.ratio(table) == pytest.approx(30 * 0.1 / 10), "on a device the cores are the decoders' own"


def test_variants_add_up_at_what_each_costs_and_a_minute_later_it_is_over() -> None:
    clock = Clock()
    demand = Demand(clock)
    clock.now += WINDOW
    demand.count("optimised", 100)
    demand.count("baseline", 100)
    demand.count("unmeasured", 100)
    clock.now += 1
    table = engine(2, optimised={16: 0.16}, baseline={16: 0.64}, unmeasured={})
    assert demand.ratio(table) == pytest.approx((1 + 4) / WINDOW / 2)
    clock.now += WINDOW
    assert demand.ratio(table) == 0
