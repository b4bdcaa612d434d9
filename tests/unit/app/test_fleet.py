"""What `docs/scaling.md` says of a fleet behind a balancer: real queues; balancer, engines and clock are simulated."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fleet import RULES, Balanced, Call, machines, outcome, run, stream


def fleet_at(load: float, rule: str, retries: int, replicas: int, seed: int) -> tuple[Balanced, list[Call]]:
    servers = machines(replicas, slow=0.25)
    calls = stream(sum(server.capacity() for server in servers), load, seed)
    return run(servers, RULES[rule](replicas, seed), calls, retries, seed), calls


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    load=st.sampled_from([0.5, 0.9, 1.1, 3.0]),
    rule=st.sampled_from(sorted(RULES)),
    retries=st.integers(0, 3),
    replicas=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_every_request_ends_once_and_no_replica_idles_while_images_wait(
    load: float, rule: str, retries: int, replicas: int, seed: int
) -> None:
    balanced, calls = fleet_at(load, rule, retries, replicas, seed)
    for call in calls:
        assert call.ends == 1
        assert (call.asked.answered is None) != (call.asked.refused is None)
        assert 1 <= len(call.tried) <= 1 + retries
    assert balanced.attempts == sum(len(call.tried) for call in calls)
    assert not any(balanced.fleet.requests), "nothing is left at any replica"
    assert not balanced.fleet.images.any()
    assert balanced.spending == 0
    assert all(replica.result.idle_while_waiting < 1e-6 for replica in balanced.replicas)
    answered = sum(call.asked.images for call in calls if call.asked.answered is not None)
    seconds = max(replica.result.seconds for replica in balanced.replicas)
    capacity = sum(replica.server.capacity() for replica in balanced.replicas)
    assert answered <= 1.05 * capacity * seconds, "no more than the machines can, whose times vary by 2 %"


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_refused_request_goes_to_another_replica(rule: str) -> None:
    _, calls = fleet_at(3.0, rule, 3, replicas=6, seed=1)
    again = [call.tried for call in calls if len(call.tried) > 1]
    assert again
    assert all(first != second for first, second, *_ in again)


@pytest.mark.parametrize("load", [0.7, 0.9])
def test_perfect_balancing_is_a_bound(load: float) -> None:
    bound = outcome("perfect", load, 3, replicas=16)
    for rule in ("random", "round robin", "least request of 2"):
        found = outcome(rule, load, 3, replicas=16)
        assert found.goodput <= bound.goodput + 0.01
        assert found.p99 >= bound.p99


def test_least_request_answers_what_chance_refuses() -> None:
    chance, least = (outcome(rule, 0.9, 0, replicas=30) for rule in ("random", "least request of 2"))
    assert least.goodput > chance.goodput + 0.03
    assert least.p99 < chance.p99


def test_the_same_seed_gives_the_same_figures() -> None:
    first, again, other = (outcome("least request of 2", 1.1, 3, replicas=10, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
