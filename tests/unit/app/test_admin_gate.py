"""Who gets through to the admin verbs; and liveness while work is stuck."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tessera.app.dispatch.dispatcher import Phase, Status
from tessera.app.errors import ForbiddenError, InternalError, StartupError, UnauthorisedError
from tessera.app.limits.admin import AdminGate
from tessera.app.observability.metrics import Metrics
from tessera.app.scheduling.scheduler import Scheduler
from tessera.app.service import Service
from tessera.app.settings import Settings

TOKEN = "a-token-that-nobody-guesses"
RIGHT = f"Bearer {TOKEN}"


def gate(**settings: object) -> AdminGate:
    return AdminGate(Settings(**{"admin": True, "admin_token": TOKEN, **settings}))


@pytest.mark.effect_of("admin")
def test_without_admin_nobody_passes() -> None:
    closed = AdminGate(Settings(admin_token=TOKEN))
    with pytest.raises(ForbiddenError):
        closed.check(RIGHT, "127.0.0.1")


@pytest.mark.parametrize(
    "sent",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer é"],
)
def test_only_the_token_passes(sent: str | None) -> None:
    with pytest.raises(UnauthorisedError):
        gate().check(sent, "127.0.0.1")
    gate().check(RIGHT, "127.0.0.1")
    gate().check(f"bearer  {TOKEN} ", "::1")


@pytest.mark.effect_of("admin_host", "host")
def test_admin_verbs_are_answered_on_their_address_only() -> None:
    for address in ("10.0.0.5", "0.0.0.0", None, "not an address"):
        with pytest.raises(ForbiddenError, match="on 127"):
            gate(host="0.0.0.0").check(RIGHT, address)
    gate(host="0.0.0.0").check(RIGHT, "::ffff:127.0.0.1")
    gate(host="10.0.0.5", admin_host="10.0.0.5").check(RIGHT, "10.0.0.5")
    gate(host="10.0.0.5", admin_host="0.0.0.0").check(RIGHT, "10.0.0.5")
    with pytest.raises(StartupError, match="never be reached"):
        gate(host="10.0.0.5")


def test_a_token_that_could_be_guessed_or_read_by_nobody_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="fewer than 16"):
        gate(admin_token="short")
    for content, words in (("\n", "fewer than 16"), ("ä" * 20, "plain ASCII"), (None, "cannot be read")):
        file = tmp_path / f"{words[:5]}.txt"
        if content is not None:
            file.write_text(content)
        with pytest.raises(StartupError, match=words):
            gate(admin_token=None, admin_token_file=file)


def test_a_byte_order_mark_is_no_part_of_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xef\xbb\xbf" + RIGHT.split()[1].encode() + b"\r\n")
    gate(admin_token=None, admin_token_file=file).check(RIGHT, "127.0.0.1")


class StuckRunner:
    """A device that does not come back."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    parallel_runs = 1
    parallel_images = 1

    def run(self, x: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.let_go.wait(60)
        return np.zeros((len(x), 5), np.float32)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Host:
    """A dispatcher of which liveness asks these three."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.snapshot = scheduler.snapshot

    def status(self) -> Status:
        return Status(Phase.READY)

    def check_alive(self) -> None:
        pass


@pytest.mark.effect_of("stuck_seconds")
def test_liveness_turns_red_when_a_batch_is_stuck() -> None:
    clock, runner = Clock(), StuckRunner()
    scheduler = Scheduler(
        {"v": runner}, size=224, max_batch=2, capacity=8, deliver=lambda _: None, observer=Metrics(), clock=clock
    )
    settings = Settings(stuck_seconds=5, request_timeout_ms=20_000)
    service = Service(settings, Metrics(), Host(scheduler), AdminGate(settings))  # type: ignore[arg-type]
    scheduler.start()
    try:
        ticket = scheduler.admit("v", 1)
        scheduler.submit(ticket, np.zeros((1, 224, 224, 3), np.uint8))
        assert runner.entered.wait(60)
        clock.now = 4.9
        service.check_alive()
        clock.now = 5.1
        with pytest.raises(InternalError, match="batch has been in the engine for 5 s"):
            service.check_alive()
    finally:
        runner.let_go.set()
        scheduler.stop()
    service.check_alive()
    scheduler.admit("v", 1)
    clock.now += 24
    service.check_alive()
    clock.now += 2
    with pytest.raises(InternalError, match="waited for 26 s"):
        service.check_alive()
