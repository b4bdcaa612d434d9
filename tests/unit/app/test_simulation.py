"""What `docs/scheduling.md` says of the scheduler, under load: the real queue, a simulated engine and clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.arrivals import poisson
from benchmarks.policies import Fifo, Request, Server, Tessera
from benchmarks.simulate import CPU, PIPELINES, SERVERS, TIMEOUTS, VARIANT, at_load, stepping
from benchmarks.simulation import simulate
from tessera.app.scheduling.ticket import Priority

IMAGES = 1500
BASELINE = [0.001 + 0.038 * size for size in range(1, 17)]
BOTH = Server({VARIANT: CPU.batch_seconds[VARIANT], "baseline": BASELINE})


@pytest.mark.parametrize("machine", SERVERS)
@pytest.mark.parametrize("stream", ["Poisson", "bursty"])
@pytest.mark.parametrize("load", [0.1, 0.5, 0.9, 3.0])
def test_answers_are_in_time_and_the_engine_is_never_idle_while_images_wait(
    machine: str, stream: str, load: float
) -> None:
    server = SERVERS[machine]
    result = at_load(server, Tessera(server), stream, load, TIMEOUTS[machine], IMAGES)
    assert result.idle_while_waiting < 1e-6
    assert result.wasted < 0.02 * result.seconds, "work is not begun for requests that cannot be answered in time"
    admitted = [request for request in result.requests if request.refused is None]
    assert sum(request.in_time for request in admitted) >= 0.99 * len(admitted), "what is admitted is answered in time"
    if stream == "Poisson" and load < 1:
        assert len(admitted) >= 0.99 * len(result.requests)


@pytest.mark.parametrize("machine", SERVERS)
@pytest.mark.parametrize("load", [1.2, 3.0])
def test_goodput_stays_at_capacity_past_it(machine: str, load: float) -> None:
    server = SERVERS[machine]
    ours = at_load(server, Tessera(server), "Poisson", load, TIMEOUTS[machine], 3 * IMAGES)
    assert ours.goodput() >= 0.95 * server.capacity()
    for rival in (Fifo(1), Fifo(16), Fifo(16, 0.005), Fifo(16, 0.01)):
        assert at_load(server, rival, "Poisson", load, TIMEOUTS[machine], IMAGES).goodput() < 0.9 * ours.goodput()


@pytest.mark.parametrize("machine", SERVERS)
@pytest.mark.parametrize("load", [0.1, 0.5, 0.7, 0.9])
def test_the_tail_is_not_worse_than_with_timers(machine: str, load: float) -> None:
    server = SERVERS[machine]
    ours = at_load(server, Tessera(server), "Poisson", load, TIMEOUTS[machine], 2 * IMAGES)
    for delay in (0.005, 0.01):
        timed = at_load(server, Fifo(16, delay), "Poisson", load, TIMEOUTS[machine], 2 * IMAGES)
        assert ours.latency(99) <= 1.02 * timed.latency(99)
        assert ours.latency(50) <= 1.02 * timed.latency(50)


@pytest.mark.parametrize("machine", PIPELINES)
@pytest.mark.parametrize(("load", "goodput"), [(0.5, 0.48), (0.9, 0.87), (3.0, 0.94)])
def test_batches_in_flight_fill_the_devices_and_promises_are_kept(machine: str, load: float, goodput: float) -> None:
    server = PIPELINES[machine]
    result = at_load(server, Tessera(server), "Poisson", load, TIMEOUTS["device"], 2 * IMAGES)
    assert result.goodput() >= goodput * server.capacity()
    assert result.idle_while_waiting < 1e-6
    assert result.kept() >= 0.97
    serial = at_load(SERVERS["device"], Tessera(SERVERS["device"]), "Poisson", load, TIMEOUTS["device"], IMAGES)
    assert result.goodput() > 1.25 * serial.goodput()


def test_a_step_of_overload_leaves_nothing_behind() -> None:
    result = simulate(CPU, Tessera(CPU), stepping(CPU, 0.25, 5))
    during = [r for r in result.requests if 5 <= r.arrival < 10]
    after = [r for r in result.requests if r.arrival >= 10.5]
    assert sum(r.in_time for r in during) >= 0.9 * 5 * CPU.capacity()
    assert all(r.in_time for r in after)


def test_a_slow_machine_is_noticed() -> None:
    """The table was measured on an idle machine; now every batch takes 1.6 times as long."""
    slowed = Server({VARIANT: [1.6 * seconds for seconds in CPU.batch_seconds[VARIANT]]})
    policy = Tessera(CPU)
    rate = 3 * slowed.capacity()
    result = simulate(slowed, policy, poisson(rate, IMAGES / rate * 3, 0.25, seed=1))
    assert result.goodput() >= 0.9 * slowed.capacity()


def wandering(seconds: float, seed: int) -> Callable[[float], float]:
    """A machine that others share: its speed strays by 15 % or so, for some 3 s at a time."""
    step, memory = 0.1, math.exp(-0.1 / 3.0)
    random = np.random.default_rng(seed)
    logarithm = [0.0]
    for _ in range(round(seconds / step)):
        logarithm.append(memory * logarithm[-1] + 0.15 * math.sqrt(1 - memory**2) * random.standard_normal())
    return lambda now: math.exp(logarithm[min(int(now / step), len(logarithm) - 1)])


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_promises_are_kept_on_a_machine_whose_speed_wanders(seed: int) -> None:
    server = replace(CPU, slowdown=wandering(100.0, seed))
    result = at_load(server, Tessera(server), "Poisson", 3.0, 1.0, 3 * IMAGES, seed)
    assert result.kept() >= 0.998
    assert result.goodput() >= 0.95 * CPU.capacity()


def test_large_requests_are_split_and_do_not_hold_up_small_ones() -> None:
    requests = poisson(0.5 * CPU.capacity(), 20, 2.0, seed=1)
    large = [Request(0.5 + 2 * number, images=16, timeout=2.0) for number in range(9)]
    result = simulate(CPU, Tessera(CPU), sorted([*requests, *large], key=lambda request: request.arrival))
    assert all(request.in_time for request in result.requests)
    small_behind = [r for r in requests if any(0 <= r.arrival - big.arrival < 0.1 for big in large)]
    whole = CPU.batch_seconds[VARIANT][15]
    waited = sorted(r.answered - r.arrival for r in small_behind)
    assert waited[len(waited) // 2] < whole, "a request of one image goes between the halves of one of 16"


def test_shadow_traffic_is_answered_and_hardly_delays_the_rest() -> None:
    def run(shadow: bool) -> tuple[float, list[Request]]:
        requests = poisson(0.6 * CPU.capacity(), 60, 2.0, seed=1)
        copies = [
            Request(r.arrival, priority=Priority.BACKGROUND, variant="baseline") for r in requests[::50] if shadow
        ]
        simulate(BOTH, Tessera(BOTH), sorted([*requests, *copies], key=lambda request: request.arrival))
        times = [r.answered - r.arrival for r in requests]
        return sum(times) / len(times), copies

    alone, _ = run(shadow=False)
    beside, copies = run(shadow=True)
    assert all(copy.answered is not None or copy.refused is not None for copy in copies)
    assert sum(copy.answered is not None for copy in copies) > 0.5 * len(copies)
    assert beside < alone + 0.1 * BASELINE[0] + 0.002


def test_both_variants_are_served_under_overload() -> None:
    optimised = poisson(2 * BOTH.capacity(), 10, 0.5, seed=1)
    baseline = poisson(1.0 * BOTH.capacity("baseline"), 10, 0.5, seed=2)
    for request in baseline:
        request.variant = "baseline"
    result = simulate(BOTH, Tessera(BOTH), sorted([*optimised, *baseline], key=lambda request: request.arrival))
    used = sum(r.in_time for r in optimised) / BOTH.capacity() + sum(r.in_time for r in baseline) / BOTH.capacity(
        "baseline"
    )
    assert used >= 0.9 * 10, "together they fill the engine"
    for requests in (optimised, baseline):
        assert sum(r.in_time for r in requests) > 0.1 * len(requests)
    assert result.idle_while_waiting < 1e-6
