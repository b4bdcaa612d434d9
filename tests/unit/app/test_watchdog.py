"""A process counts as hung by what it does, never because others leave it no core."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tessera.app.processes.activity import Activity, activity_of
from tessera.app.processes.watchdog import (
    INTERVAL,
    SERVING,
    SERVING_FRONTEND,
    STARTING,
    Patience,
    Running,
    Watchdog,
    batch_limit,
)

LOOKS = 2000  # as many as make 200 s
BUSY = "print('on', flush=True)\nwhile True: pass"
WAITING = "print('on', flush=True)\ninput()"
# A thread that cannot get on, beside one that now and then does a little.
DEADLOCKED = """
import threading, time
lock = threading.Lock()
lock.acquire()
threading.Thread(target=lock.acquire, daemon=True).start()
print('on', flush=True)
while True:
    time.sleep(0.001)
"""


class Process:
    """A process that does as it is told."""

    def __init__(self) -> None:
        self.wants_a_core = False
        self.cpu_seconds = {1: 5.0}

    def __call__(self) -> Activity:
        return Activity(self.wants_a_core, dict(self.cpu_seconds))


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            yield process
        finally:
            process.kill()


def looks_until_hung(watchdog: Watchdog, patience: Patience, heartbeat: int = 0) -> int | None:
    for number in range(LOOKS):
        if watchdog.look(heartbeat, patience) is not None:
            return number
    return None


@pytest.mark.parametrize("patience", [SERVING, SERVING_FRONTEND, STARTING])
def test_a_process_that_beats_does_not_count_as_hung_whatever_it_does(patience: Patience) -> None:
    process = Process()
    watchdog = Watchdog(process)
    for beat in range(LOOKS):
        process.wants_a_core = beat % 2 == 0
        process.cpu_seconds[1] += 100.0
        assert watchdog.look(beat // 2, patience) is None


@pytest.mark.parametrize("patience", [SERVING, SERVING_FRONTEND, STARTING])
def test_a_process_that_does_nothing_counts_as_hung_by_the_looks(patience: Patience) -> None:
    assert looks_until_hung(Watchdog(Process()), patience) == pytest.approx(patience.idle / INTERVAL, abs=1)


@pytest.mark.parametrize("patience", [SERVING, SERVING_FRONTEND, STARTING])
def test_a_process_that_gets_no_core_is_given_time(patience: Patience) -> None:
    process = Process()
    process.wants_a_core = True
    watchdog = Watchdog(process)
    assert looks_until_hung(watchdog, patience) is None
    process.cpu_seconds = {1: 5.0 + patience.busy / 2, 2: patience.busy / 2}  # its event loop had its share as well
    assert looks_until_hung(watchdog, patience) is None
    process.cpu_seconds[1] = 5.0 + patience.busy
    reason = watchdog.look(0, patience)
    assert reason is not None
    assert f"no heartbeat for {patience.busy:.0f} s" in reason
    assert watchdog.look(1, patience) is None


def test_a_spell_of_starvation_is_forgotten_at_the_next_heartbeat() -> None:
    process = Process()
    watchdog = Watchdog(process)
    for beat in range(5):
        assert [watchdog.look(beat, SERVING) for _ in range(25)] == [None] * 25
        process.cpu_seconds[1] += 2.5


def test_a_batch_over_its_limit_counts_as_hung_when_its_process_had_the_time() -> None:
    process = Process()
    watchdog, limit = Watchdog(process), batch_limit(0.1)
    process.wants_a_core = True
    batch = Running(123.0, limit)
    assert [watchdog.look(beat, SERVING, batch) for beat in range(LOOKS)] == [None] * LOOKS, "it got no core"
    process.cpu_seconds[1] += limit / 4
    assert "over its limit" in (watchdog.look(LOOKS, SERVING, batch) or "")
    assert watchdog.look(LOOKS + 1, SERVING, Running(124.0, limit)) is None, "another batch"
    process.wants_a_core = False
    reasons = [watchdog.look(LOOKS + 2 + beat, SERVING, Running(124.0, limit)) for beat in range(20)]
    assert reasons[:5] == [None] * 5
    assert reasons[-1] is not None, "nothing computes it"


def test_a_real_process_that_computes_is_given_time_and_a_stopped_one_is_not() -> None:
    with running(BUSY) as process:
        watchdog = Watchdog(partial(activity_of, process.pid))
        patient = Patience(SERVING.idle, 1e9)
        assert looks_until_hung(watchdog, patient) is None
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert looks_until_hung(watchdog, patient) == pytest.approx(SERVING.idle / INTERVAL, abs=1)


def test_a_real_process_that_computes_for_ever_is_found_in_the_end() -> None:
    with running(BUSY) as process:
        watchdog = Watchdog(partial(activity_of, process.pid))
        patience = Patience(SERVING.idle, 0.5)
        watchdog.look(0, patience)
        before = activity_of(process.pid).cpu_seconds[process.pid]
        while watchdog.look(0, patience) is None:
            pass
        assert activity_of(process.pid).cpu_seconds[process.pid] >= before + 0.4


@pytest.mark.parametrize("code", [WAITING, DEADLOCKED])
def test_a_real_process_that_waits_for_ever_is_found(code: str) -> None:
    with running(code) as process:
        watchdog = Watchdog(partial(activity_of, process.pid))
        while watchdog.look(0, Patience(SERVING.idle, 1e9)) is None:
            pass


def test_a_process_that_has_ended_does_nothing() -> None:
    with running(BUSY) as process:
        process.kill()
        process.wait()
    assert activity_of(process.pid) == Activity(False, {})
