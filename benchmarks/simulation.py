"""A simulated server: one engine, a few decoders, the real queue or a rival, under a given stream of requests.

Discrete events, no threads, no sleeping: the clock jumps from event to event, so an hour of traffic takes seconds. The
times of batches and of decoding are given (`Server`) and vary at random.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from benchmarks.policies import Policy, Request, Run, Server


class Agenda:
    """What will happen, in the order of its times; of one time, in the order in which it was put down."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act` when it is `time`."""
        heapq.heappush(self._events, (time, next(self._numbers), act, arguments))

    def run(self) -> None:
        """Let everything happen."""
        while self._events:
            self.now, _, act, arguments = heapq.heappop(self._events)
            act(*arguments)


@dataclass
class Result:
    """A simulated run.

    Attributes:
        requests: Every request and what became of it.
        seconds: From the first arrival to the last event.
        busy: Seconds that the engine ran, summed over batches.
        idle_while_waiting: Seconds that it could have run another batch, and images waited.
        sizes: Images of every batch.
        wasted: Engine seconds spent on images whose request was not answered in time.
    """

    requests: list[Request]
    seconds: float = 0.0
    busy: float = 0.0
    idle_while_waiting: float = 0.0
    sizes: list[int] = field(default_factory=list)
    wasted: float = 0.0

    def goodput(self) -> float:
        """Images a second answered by their deadline and before the last arrival: what drains after it is left out."""
        end = max(request.arrival for request in self.requests)
        return sum(r.images for r in self.requests if r.in_time and r.answered is not None and r.answered <= end) / end

    def latency(self, percent: float, wanted: Callable[[Request], bool] = lambda request: True) -> float:
        """A percentile of the seconds from arrival to answer, of the requests that were answered."""
        times = [r.answered - r.arrival for r in self.requests if r.answered is not None and wanted(r)]
        return float(np.percentile(times, percent)) if times else math.nan

    def kept(self) -> float:
        """The part of admitted requests that were answered in time."""
        admitted = [request for request in self.requests if request.refused is None]
        return sum(request.in_time for request in admitted) / len(admitted)

    def refused(self) -> float:
        """The part of requests that were refused."""
        return sum(request.refused is not None for request in self.requests) / len(self.requests)


class Engine:
    """The devices of a server: each copies batches while it executes another one.

    Args:
        server: The machine.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._held = [0] * server.devices
        self._executing_until = [0.0] * server.devices

    @property
    def free(self) -> bool:
        """Whether another batch can be taken."""
        return sum(self._held) < self._server.parallel

    def start(self, run: Run, now: float, seconds: float) -> float:
        """Take a batch that needs `seconds` when it is alone; returns when it will be over."""
        run.started = now
        run.device = device = min(range(len(self._held)), key=lambda number: self._held[number])
        self._held[device] += 1
        copying = seconds * self._server.copying
        begin = max(now + copying, self._executing_until[device])
        self._executing_until[device] = begin + seconds - copying
        return self._executing_until[device]

    def end(self, run: Run) -> None:
        """A batch is over."""
        self._held[run.device] -= 1


class Replica:
    """One server at work.

    Args:
        server: The machine.
        policy: Its rule of batching.
        agenda: Where its events go.
        random: By which its times vary.
        tell: Called with each request when it is answered, refused or given up.
    """

    def __init__(
        self,
        server: Server,
        policy: Policy,
        agenda: Agenda,
        random: np.random.Generator,
        tell: Callable[[Request], None] = lambda request: None,
    ) -> None:
        self.server = server
        self.result = Result([])
        self._policy = policy
        self._agenda = agenda
        self._random = random
        self._tell = tell
        self._engine = Engine(server)
        self._to_decode: deque[Request] = deque()
        self._undecoded: dict[Request, int] = {}
        self._decoding = 0
        self._woken_at = -1.0
        self._last = 0.0
        self._ready = 0

    def arrive(self, request: Request) -> None:
        """A request comes, and is taken in or refused."""
        self._account()
        now = self._agenda.now
        if self._policy.admit(request, now):
            self._undecoded[request] = request.images
            self._to_decode.extend([request] * request.images)
        else:
            request.refused = now
            self._tell(request)
        self._go_on()

    def _decoded(self, request: Request) -> None:
        self._account()
        self._decoding -= 1
        self._undecoded[request] -= 1
        if self._undecoded[request] == 0:
            del self._undecoded[request]
            self._policy.enqueue(request, self._agenda.now)
        self._go_on()

    def _finished(self, run: Run) -> None:
        self._account()
        now = self._agenda.now
        self._engine.end(run)
        for done in self._policy.finish(run, now):
            done.answered = now
            self._tell(done)
        seconds = now - run.started
        self.result.busy += seconds
        late = sum(member.deadline < now for member, _ in run.members)
        self.result.wasted += seconds * late / len(run.members)
        self._go_on()

    def _woken(self) -> None:
        self._account()
        self._go_on()

    def _account(self) -> None:
        """Count the time since the last event, if images waited for no reason."""
        if self._engine.free and self._ready:
            self.result.idle_while_waiting += self._agenda.now - self._last
        self._last = self.result.seconds = self._agenda.now

    def _go_on(self) -> None:
        """Begin what can be begun now."""
        agenda, server, policy = self._agenda, self.server, self._policy
        now = agenda.now
        while self._to_decode and self._decoding < server.decoders:
            self._decoding += 1
            agenda.at(now + self._vary(server.decode_seconds), self._decoded, self._to_decode.popleft())
        while self._engine.free and (taken := policy.take(now)) is not None:
            self.result.sizes.append(len(taken.members))
            slow = (1 + server.decode_slows * self._decoding) * server.slowdown(now)
            alone = server.batch_seconds[taken.members[0][0].variant][len(taken.members) - 1]
            agenda.at(self._engine.start(taken, now, self._vary(alone) * slow), self._finished, taken)
        for request in policy.given_up():
            request.given_up = now
            self._tell(request)
        if self._engine.free:
            wake = policy.wake_at()
            if wake is not None and wake > max(now, self._woken_at):
                self._woken_at = wake
                agenda.at(wake, self._woken)
        self._ready = policy.ready()

    def _vary(self, seconds: float) -> float:
        return seconds * math.exp(self.server.noise * self._random.standard_normal())


def simulate(server: Server, policy: Policy, requests: Iterable[Request], seed: int = 0) -> Result:
    """Run `requests` through `policy` on `server` to the end."""
    agenda = Agenda()
    replica = Replica(server, policy, agenda, np.random.default_rng(seed))
    replica.result.requests = list(requests)
    for request in replica.result.requests:
        agenda.at(request.arrival, replica.arrive, request)
    agenda.run()
    return replica.result
