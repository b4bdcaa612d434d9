"""Simulates a fleet behind a balancer and prints how its rules compare: `python -m benchmarks.fleet`.

Every replica has the service's own queue. `docs/scaling.md` has the table and what it shows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.arrivals import steps
from benchmarks.balancers import (
    BACK_OFF,
    BUDGET,
    LEAST_BUDGET,
    RETRIES,
    Balancer,
    Fleet,
    LeastRequest,
    Perfect,
    RoundRobin,
)
from benchmarks.policies import VARIANT, Request, Server, Tessera
from benchmarks.simulate import CPU
from benchmarks.simulation import Agenda, Replica

TIMEOUT = 0.25
REFUSAL_SECONDS = 0.002  # a replica's 503, there and back
SLOW, SPEED = 0.1, 0.5  # one replica in ten has half the speed
LARGE, IMAGES = 0.05, 8  # one request in twenty has eight images
# Seconds of traffic: until the queues are as they stay, what is counted, and what keeps the last of that company.
BEFORE, COUNTED, AFTER = 0.35, 0.3, 0.05
# Where the load is to be above 1, queues would need seconds to fill: first so many seconds of a higher load.
FILLING, FILLING_LOAD = 0.5, 1.4
LOADS = (0.5, 0.7, 0.9, 1.1)
RULES: dict[str, Callable[[int, int], Balancer]] = {
    "random": lambda replicas, seed: LeastRequest(1, seed),
    "round robin": lambda replicas, seed: RoundRobin(replicas),
    "least request of 2": lambda replicas, seed: LeastRequest(2, seed),
    "least request of 4": lambda replicas, seed: LeastRequest(4, seed),
    "perfect": lambda replicas, seed: Perfect(),
}

TRIED = {"least request of 4": (RETRIES,), "perfect": (RETRIES,)}  # where both are alike, or one is enough


@dataclass(eq=False)
class Call:
    """What a client asks for, and what becomes of it.

    Attributes:
        asked: As the client sees it: `answered`, or `refused` when it gets a 503 in the end.
        tried: The replicas that have had it.
        spending: Whether it counts among the retries of the budget now.
        ends: How often the client was told an outcome.
    """

    asked: Request
    tried: list[int] = field(default_factory=list)
    spending: bool = False
    ends: int = 0


class Balanced:
    """A fleet at work behind one balancer.

    Args:
        servers: The machines.
        balancer: How it chooses.
        agenda: Where its events go.
        retries: How often a refused request is tried elsewhere, within the budget.
        seed: By which all that varies does.
    """

    def __init__(
        self, servers: Sequence[Server], balancer: Balancer, agenda: Agenda, retries: int = RETRIES, seed: int = 0
    ) -> None:
        self._agenda = agenda
        self._balancer = balancer
        self._retries = retries
        self._random = np.random.default_rng(seed)
        fastest = max(server.capacity() for server in servers)
        self.fleet = Fleet(np.array([server.capacity() / fastest for server in servers]))
        self.attempts = 0
        self.spending = 0
        self._active = 0
        self._calls: dict[Request, Call] = {}
        self.replicas = [Replica(server, Tessera(server), agenda, self._random, self._told) for server in servers]

    def arrive(self, call: Call) -> None:
        """Send a request, for the first time or again, to a replica."""
        number = self._balancer.pick(self.fleet, call.tried)
        call.tried.append(number)
        self.attempts += 1
        self._active += 1
        self.fleet.requests[number] += 1
        self.fleet.images[number] += call.asked.images
        # A replica counts the time from when a request reaches it.
        attempt = replace(call.asked, arrival=self._agenda.now)
        self._calls[attempt] = call
        self.replicas[number].arrive(attempt)

    def _told(self, attempt: Request) -> None:
        """A replica has answered, refused or given up a request."""
        delay = 0.0 if attempt.answered is not None else REFUSAL_SECONDS
        self._agenda.at(self._agenda.now + delay, self._returned, attempt)

    def _returned(self, attempt: Request) -> None:
        call = self._calls.pop(attempt)
        number = call.tried[-1]
        self._active -= 1
        self.fleet.requests[number] -= 1
        self.fleet.images[number] -= attempt.images
        if call.spending:
            call.spending = False
            self.spending -= 1
        now = self._agenda.now
        if attempt.answered is not None:
            call.asked.answered = now
            call.ends += 1
        elif self._may_retry(call):
            call.spending = True
            self.spending += 1
            self._agenda.at(now + self._pause(len(call.tried)), self.arrive, call)
        else:
            call.asked.refused = now
            call.ends += 1

    def _may_retry(self, call: Call) -> bool:
        """Whether the number of retries, the budget and the client's own deadline allow one more."""
        budget = max(float(LEAST_BUDGET), BUDGET * self._active)
        return len(call.tried) <= self._retries and self.spending < budget and self._agenda.now < call.asked.deadline

    def _pause(self, attempt: int) -> float:
        """Envoy's back-off before the retry of this number: up to its base times 2^n - 1, any of it as likely."""
        base, most = BACK_OFF
        return float(self._random.uniform(0, min(most, base * (2**attempt - 1))))


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated fleet, of the requests of the counted time alone.

    Attributes:
        goodput: Images a second answered by their deadline, over the fleet's capacity.
        p50: Median seconds from arrival to answer.
        p99: The same of the slowest hundredth.
        refused: The part of requests that got a 503 in the end.
        attempts: How often a request was sent to a replica, on average of all.
    """

    goodput: float
    p50: float
    p99: float
    refused: float
    attempts: float


def machines(replicas: int, slow: float = SLOW, speed: float = SPEED) -> list[Server]:
    """The fleet: the reference CPU, and a part of it slower."""
    slower = replace(CPU, batch_seconds={VARIANT: [seconds / speed for seconds in CPU.batch_seconds[VARIANT]]})
    few = round(slow * replicas)
    return [slower] * few + [CPU] * (replicas - few)


def stream(capacity: float, load: float, seed: int) -> list[Call]:
    """Poisson arrivals of requests, a few of which have many images."""
    rate = capacity / (1 + LARGE * (IMAGES - 1))
    filling = max(load, FILLING_LOAD) if load > 1 else load
    requests = steps(
        [(FILLING if load > 1 else 0.0, filling * rate), (BEFORE + COUNTED + AFTER, load * rate)], TIMEOUT, seed
    )
    large = np.random.default_rng(seed).random(len(requests)) < LARGE
    return [Call(replace(request, images=IMAGES if many else 1)) for request, many in zip(requests, large, strict=True)]


def run(
    servers: Sequence[Server], balancer: Balancer, calls: Sequence[Call], retries: int = RETRIES, seed: int = 0
) -> Balanced:
    """Send all calls through the balancer, to the end."""
    agenda = Agenda()
    balanced = Balanced(servers, balancer, agenda, retries, seed)
    for call in calls:
        agenda.at(call.asked.arrival, balanced.arrive, call)
    agenda.run()
    return balanced


def outcome(rule: str, load: float, retries: int, replicas: int = 1000, seed: int = 1) -> Outcome:
    """Simulate one cell of the table."""
    servers = machines(replicas)
    capacity = sum(server.capacity() for server in servers)
    calls = stream(capacity, load, seed)
    balanced = run(servers, RULES[rule](replicas, seed), calls, retries, seed)
    begin = BEFORE + (FILLING if load > 1 else 0.0)
    counted = [call.asked for call in calls if begin <= call.asked.arrival < begin + COUNTED]
    times = [asked.answered - asked.arrival for asked in counted if asked.answered is not None]
    return Outcome(
        goodput=sum(asked.images for asked in counted if asked.in_time) / COUNTED / capacity,
        p50=float(np.percentile(times, 50)) if times else math.nan,
        p99=float(np.percentile(times, 99)) if times else math.nan,
        refused=sum(asked.refused is not None for asked in counted) / len(counted),
        attempts=balanced.attempts / len(calls),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="images over what the fleet can do")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    loads, replicas, seed = arguments.loads, arguments.replicas, arguments.seed
    rows = [(rule, retries) for rule in RULES for retries in TRIED.get(rule, (0, RETRIES))]
    with ProcessPoolExecutor() as pool:
        table = [
            [pool.submit(outcome, rule, load, retries, replicas, seed) for load in loads] for rule, retries in rows
        ]
        print(f"| goodput, p50 / p99 ms, refused, sent | {' | '.join(f'load {load}' for load in loads)} |")
        print(f"|---|{'---|' * len(loads)}")
        for (rule, retries), row in zip(rows, table, strict=True):
            name = f"{rule}, {'503 tried elsewhere' if retries else 'no retries'}"
            print(f"| {name} | {' | '.join(described(cell.result()) for cell in row)} |", flush=True)


def described(found: Outcome) -> str:
    """A cell of the table."""
    times = f"{found.p50 * 1e3:.0f} / {found.p99 * 1e3:.0f}"
    return f"{found.goodput:.3f}, {times}, {found.refused:.1%}, {found.attempts:.2f}"


if __name__ == "__main__":
    main()
