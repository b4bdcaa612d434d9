"""Streams of requests for the simulation: Poisson, bursty and in steps."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.policies import Request


def poisson(rate: float, seconds: float, timeout: float = math.inf, seed: int = 0) -> list[Request]:
    """Requests of one image, independent of each other, `rate` a second."""
    return steps([(seconds, rate)], timeout, seed)


def bursty(rate: float, seconds: float, timeout: float = math.inf, seed: int = 0) -> list[Request]:
    """As `poisson` on average, but in bursts: 0.25 s at 3 times the rate, then 0.75 s at a third of it, in turn."""
    phases: list[tuple[float, float]] = []
    while sum(length for length, _ in phases) < seconds:
        phases += [(0.25, 3 * rate), (0.75, rate / 3)]
    return steps(phases, timeout, seed)


def steps(phases: list[tuple[float, float]], timeout: float = math.inf, seed: int = 0) -> list[Request]:
    """Poisson arrivals whose rate changes: (seconds, rate) one after the other."""
    random = np.random.default_rng(seed)
    requests, begin = [], 0.0
    for seconds, rate in phases:
        times = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
        requests += [Request(begin + float(time), timeout=timeout) for time in times]
        begin += seconds
    return requests
