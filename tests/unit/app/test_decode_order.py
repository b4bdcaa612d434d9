"""Which image is decoded next: the cheap, each client in turn, and everybody in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.errors import DeadlineUnreachableError
from tessera.app.imaging.estimate import Estimate
from tessera.app.imaging.order import DecodeOrder, Job

MEMORY = 512 << 20


def order(threads: int = 2) -> DecodeOrder[str]:
    return DecodeOrder(MEMORY, threads)


def job(name: str, seconds: float, client: str = "a", size: int = 1 << 20) -> Job[str]:
    return Job(name, 0, client, Estimate(size, seconds))


def drain(waiting: DecodeOrder[str]) -> list[str]:
    taken = []
    while (next_one := waiting.take(large=True)) is not None:
        taken.append(next_one.request)
        waiting.finish(next_one, None)
    return taken


def test_the_cheap_go_first() -> None:
    waiting = order()
    for name, seconds in (("huge", 4.0), ("large", 0.3), ("photo", 0.004)):
        waiting.add(job(name, seconds, name), 0.0)
    assert drain(waiting) == ["photo", "large", "huge"]


def test_nobody_is_overtaken_for_ever() -> None:
    waiting = order()
    waiting.add(job("huge", 4.0, "a"), 0.0)
    taken = 0
    for step in range(1000):
        waiting.add(job("large", 0.3, "b"), step * 0.1)
        next_one = waiting.take(large=True)
        assert next_one is not None
        waiting.finish(next_one, None)
        if next_one.request == "huge":
            break
        taken += 1
    assert 100 < taken < 200, "some 16 s, which is four times its own"


@pytest.mark.parametrize("seconds", [0.01, 0.3])
def test_who_sends_much_waits_for_who_sends_little(seconds: float) -> None:
    waiting = order()
    for n in range(50):
        waiting.add(job(f"flood {n}", seconds, "flood"), 0.0)
    waiting.add(job("other", seconds, "other"), 0.001)
    taken = drain(waiting)
    assert taken.index("other") <= 1
    assert [name for name in taken if name != "other"] == [f"flood {n}" for n in range(50)], "and in turn"


def test_the_same_client_may_still_send_a_cheap_one_past_its_own_large_ones() -> None:
    waiting = order()
    for n in range(8):
        waiting.add(job(f"huge {n}", 4.0), 0.0)
    waiting.add(job("photo", 0.2), 1.0)
    assert drain(waiting)[0] == "photo"


def test_a_client_that_has_nothing_left_starts_anew() -> None:
    waiting = order()
    for n in range(100):
        waiting.add(job(str(n), 0.3), 0.0)
    drain(waiting)
    waiting.add(job("again", 0.01, "a"), 5.0)
    waiting.add(job("other", 0.01, "b"), 5.001)
    assert drain(waiting) == ["again", "other"]


def test_a_large_image_that_would_come_too_late_is_refused_with_a_time_to_come_back() -> None:
    waiting = order()
    for n in range(8):
        waiting.add(job(str(n), 4.0), 0.0, deadline=100.0)
    with pytest.raises(DeadlineUnreachableError, match="fewer pixels") as refusal:
        waiting.add(job("late", 4.0), 0.0, deadline=10.0)
    assert refusal.value.retry_after == 8, "nine times four, at half the seconds that were expected, less ten"
    waiting.add(job("photo", 0.004), 0.0, deadline=0.1)
    assert len(drain(waiting)) == 9, "what was refused waits for nothing"


def test_the_first_large_image_is_tried_whatever_is_expected() -> None:
    waiting = order()
    waiting.add(job("first", 40.0), 0.0, deadline=0.1)
    assert drain(waiting) == ["first"]


def test_the_pace_is_learnt_from_large_images() -> None:
    waiting = order()
    for _ in range(60):
        waiting.add(job("quick", 4.0), 0.0)
        quick = waiting.take(large=True)
        assert quick is not None
        waiting.finish(quick, 0.4)
    waiting.add(job("before", 4.0), 0.0)
    waiting.add(job("in time", 4.0), 0.0, deadline=1.0)
    assert drain(waiting) == ["before", "in time"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 5.0), st.integers(1, MEMORY), st.booleans()), max_size=40)
)
def test_all_that_is_not_withdrawn_is_taken_once(images: list[tuple[str, float, int, bool]]) -> None:
    waiting = order()
    names = [str(index) for index in range(len(images))]
    for index, (client, seconds, size, _) in enumerate(images):
        waiting.add(job(names[index], seconds, client, size), float(index))
    for index, (*_, withdrawn) in enumerate(images):
        if withdrawn:
            waiting.withdraw(names[index])
    kept = [name for name, (*_, withdrawn) in zip(names, images, strict=True) if not withdrawn]
    assert sorted(drain(waiting)) == sorted(kept)
