"""Token buckets and the budget of uploads: right in every order of events, and bounded themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.errors import RateLimitedError, TooManyUploadsError
from tessera.app.limits.clients import RateLimiter, client_key
from tessera.app.limits.uploads import Upload, UploadBudget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def admitted(limiter: RateLimiter, client: str) -> bool:
    try:
        limiter.admit(client)
    except RateLimitedError:
        return False
    return True


@given(
    rate=st.sampled_from([0.5, 1.0, 8.0]),
    burst=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.125, 0.5, 2.0, 64.0]), st.sampled_from("ab")), max_size=60),
)
def test_the_limiter_is_a_token_bucket_per_client(rate: float, burst: int, steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock=clock)
    tokens, seen = {"a": float(burst), "b": float(burst)}, {"a": 0.0, "b": 0.0}
    for pause, client in steps:
        clock.now += pause
        tokens[client] = min(burst, tokens[client] + (clock.now - seen[client]) * rate)
        seen[client] = clock.now
        expected = tokens[client] >= 1
        tokens[client] -= expected
        assert admitted(limiter, client) == expected


def test_a_refused_client_is_told_when_to_come_back() -> None:
    clock = Clock()
    limiter = RateLimiter(0.25, 2, clock=clock)
    limiter.admit("a")
    limiter.admit("a")
    with pytest.raises(RateLimitedError) as refused:
        limiter.admit("a")
    assert refused.value.headers() == {"Retry-After": "4"}
    clock.now += 4
    limiter.admit("a")


def test_memory_is_bounded_and_idle_clients_are_forgotten() -> None:
    clock = Clock()
    limiter = RateLimiter(1.0, 1, most_clients=100, clock=clock)
    for number in range(10_000):
        limiter.admit(str(number))
        assert len(limiter) <= 100
    assert not admitted(limiter, "9999"), "those that were seen last are still known"
    clock.now += 2
    for _ in range(60):
        admitted(limiter, "other")
    assert len(limiter) == 1


def test_one_household_of_addresses_is_one_client() -> None:
    assert client_key("10.1.2.3") == "10.1.2.3"
    assert client_key("::ffff:10.1.2.3") == "10.1.2.3"
    assert client_key("2001:db8:1:2:3:4:5:6") == client_key("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert client_key("2001:db8:1:3::9") != client_key("2001:db8:1:2::9")
    assert client_key("fe80::1%eth0") == "fe80::/64"
    assert client_key("not:an:address") == "not:an:address"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.booleans()), max_size=60))
def test_uploads_never_hold_more_than_the_budget_and_give_all_back(steps: list[tuple[int, int, bool]]) -> None:
    budget = UploadBudget(100)
    uploads = [Upload(budget) for _ in range(4)]
    sizes = [0] * 4
    for index, size, ends in steps:
        if ends:
            uploads[index].end()
            sizes[index] = 0
            continue
        fits = sum(sizes) - sizes[index] + max(sizes[index], size) <= 100
        if fits:
            uploads[index].grow(size)
            sizes[index] = max(sizes[index], size)
        else:
            with pytest.raises(TooManyUploadsError):
                uploads[index].grow(size)
        assert budget.held == sum(sizes) <= 100
    for upload in uploads:
        upload.end()
        upload.end()
    assert budget.held == 0
