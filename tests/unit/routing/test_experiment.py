"""The decision with its precedence, and the state that GET /v1/experiments shows."""

from __future__ import annotations

import json
import logging

import pytest

from tessera.app.errors import InvalidParameterError, UnknownVariantError
from tessera.app.routing.events import Answered, Compared, Loaded, NotCompared, decode_events, encode_events
from tessera.app.routing.experiment import Experiment
from tessera.app.routing.guard import MIN_SAMPLES, Guard
from tessera.app.routing.router import Decision, Plan, Router, shadow_of
from tessera.app.routing.shadow import Comparison

VARIANTS = ("optimised", "baseline")
SPLIT = {"optimised": 0.5, "baseline": 0.5}


def router(**plan: object) -> Router:
    return Router(Plan(**{"default": "optimised", **plan}))  # type: ignore[arg-type]


def route(routes: Router, variant: list[str], key: list[str], request_id: str, *, tripped: bool = False) -> Decision:
    return routes.route(variant, key, request_id, variants=VARIANTS, tripped=tripped)


def test_without_a_plan_the_header_chooses_and_the_default_fills_in() -> None:
    assert route(router(), [], [], "id") == ("optimised", "default")
    assert route(router(), [], ["some key"], "id") == ("optimised", "default")
    assert route(router(), ["baseline"], [], "id") == ("baseline", "explicit")


def test_the_key_decides_under_a_split_and_the_request_id_where_there_is_none() -> None:
    routes = router(shares=SPLIT)
    by_key = {key: route(routes, [], [key], "any").variant for key in map(str, range(50))}
    assert set(by_key.values()) == set(VARIANTS)
    assert by_key == {key: route(routes, [], [key], "other").variant for key in by_key}
    assert by_key == {key: route(routes, [], [], key).variant for key in by_key}


def test_a_tripped_guard_overrules_split_and_default_and_not_the_client() -> None:
    for routes in (router(), router(shares=SPLIT)):
        decisions = {route(routes, [], [str(key)], "id", tripped=True) for key in range(50)}
        assert {decision.variant for decision in decisions} == {"baseline"}
        assert ("baseline", "guard") in decisions
        assert route(routes, ["optimised"], [], "id", tripped=True) == ("optimised", "explicit")


def test_bad_headers_are_errors() -> None:
    with pytest.raises(UnknownVariantError, match="baseline, optimised"):
        route(router(), ["fast"], [], "id")
    with pytest.raises(InvalidParameterError):
        route(router(), [], ["a", "b"], "id")


def test_who_shadows_whom() -> None:
    assert shadow_of("optimised", VARIANTS) == "baseline"
    assert shadow_of("baseline", VARIANTS) == "optimised"
    assert shadow_of("baseline", ["baseline"]) is None
    assert shadow_of("optimised", ["optimised", "other"]) is None


class Watcher:
    """Counts like the metrics do."""

    def __init__(self) -> None:
        self.tripped = False
        self.events: list[str | None] = []
        self.split: dict[str, float] = {}
        self.ended: dict[str, int] = {}

    def answered(self, variant: str, reason: str) -> None: ...

    def shadow_ended(self, outcome: str, images: int) -> None:
        self.ended[outcome] = self.ended.get(outcome, 0) + images

    def shadow_compared(self, *, distance: float, agreement: float, speed_up: float | None) -> None: ...

    def guard_changed(self, *, tripped: bool, event: str | None) -> None:
        self.tripped = tripped
        self.events.append(event)

    def split_changed(self, shares: dict[str, float]) -> None:
        self.split = shares


def experiment(watcher: Watcher, bound: float | None = 0.9, **plan: object) -> Experiment:
    guard = None if bound is None else Guard(bound, 100, automatic=False, clock=lambda: 1_800_000_000.0)
    return Experiment(router(**plan), VARIANTS, guard=guard, observer=watcher, clock=lambda: 1_700_000_000.0)


def compared(number: int, *, agrees: bool) -> Compared:
    return Compared(Comparison(agrees, 0.01 if agrees else 2.0, 3.0), b"%d" % number)


def test_a_trip_moves_traffic_tells_why_and_a_reset_brings_it_back(caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher()
    running = experiment(watcher, shares=SPLIT)
    assert watcher.split == SPLIT
    with caplog.at_level(logging.ERROR):
        for number in range(MIN_SAMPLES):
            running.record(compared(number, agrees=False))
    assert running.tripped
    assert (watcher.tripped, watcher.split) == (True, {"baseline": 1.0, "optimised": 0.0})
    assert [record.message for record in caplog.records] == ["accuracy guard"]
    guard = running.snapshot()["guard"]
    assert isinstance(guard, dict)
    assert guard["state"] == "tripped"
    assert guard["why"].startswith("Only 0 of the last 20 compared images")
    assert guard["why"].endswith("It ends with POST /v1/experiments/guard/reset (an admin verb) or a restart.")
    assert guard["history"][0]["at"] == "2027-01-15T08:00:00.000Z"

    assert running.reset_guard("Reset by hand.")
    assert not running.tripped
    assert watcher.split == SPLIT
    assert watcher.events == [None, "tripped", "reset"]
    assert not running.reset_guard("Reset by hand."), "nothing to reset any more"


def test_comparisons_with_a_variant_that_was_replaced_do_not_count() -> None:
    running = experiment(Watcher(), shares=SPLIT)
    for number in range(MIN_SAMPLES - 1):
        running.record(compared(number, agrees=False))
    running.record(Loaded("optimised"))
    running.record(compared(0, agrees=False))
    assert not running.tripped
    guard = running.snapshot()["guard"]
    assert isinstance(guard, dict)
    assert guard["agreement"]["images"] == 1
    for number in range(1, MIN_SAMPLES):
        running.record(compared(number, agrees=False))
    assert running.tripped, "a replacement that is as wrong trips all the same"
    running.record(Loaded("optimised"))
    assert running.tripped, "only a reset ends a trip"


def test_the_snapshot_adds_up_and_is_json() -> None:
    watcher = Watcher()
    running = experiment(watcher, shadow_share=0.25)
    for number in range(100):
        running.record(Answered(Decision("optimised", "default"), (number + 1) / 1000))
    running.record(Answered(Decision("baseline", "explicit"), 0.05))
    for number in range(50):
        running.record(compared(number, agrees=number > 0))
    running.record(NotCompared("dropped", 7))
    shown = json.loads(json.dumps(running.snapshot(), allow_nan=False))

    assert shown["since"] == "2023-11-14T22:13:20.000Z"
    optimised, baseline = shown["variants"]["optimised"], shown["variants"]["baseline"]
    assert optimised["requests"]["total"] == 100
    assert optimised["requests"]["chosen_by"] == {"explicit": 0, "guard": 0, "split": 0, "default": 100}
    assert baseline["requests"]["chosen_by"]["explicit"] == 1
    assert optimised["latency_ms"]["mean"] == pytest.approx(50.5)
    for share in (50, 95, 99):
        assert optimised["latency_ms"][f"p{share}"] == pytest.approx(share, rel=0.011)
    shadow = shown["shadow"]
    assert shadow["images"] == {"compared": 50, "dropped": 7, "failed": 0}
    assert watcher.ended == {"compared": 50, "dropped": 7}
    assert shadow["agreement"]["value"] == pytest.approx(0.98)
    assert shadow["agreement"]["low"] < 0.98 < shadow["agreement"]["high"] < 1
    assert shadow["speed_up"]["value"] == pytest.approx(3.0)
    assert shadow["speed_up"]["pairs"] == 50
    assert shown["guard"]["state"] == "watching"
    assert shown["split"]["live"] == {"baseline": 0.0, "optimised": 1.0}


def test_without_a_guard_nothing_trips() -> None:
    running = experiment(Watcher(), bound=None)
    for number in range(200):
        running.record(compared(number, agrees=False))
    assert not running.tripped
    assert not running.reset_guard("why")
    shown = running.snapshot()["guard"]
    assert isinstance(shown, dict)
    assert shown["state"] == "off"


def test_events_travel_between_processes_unchanged() -> None:
    events = [
        Answered(Decision("optimised", "split"), 0.0123),
        compared(7, agrees=True),
        Compared(Comparison(False, 0.5, None), bytes(range(16))),
        NotCompared("dropped", 3),
        Loaded("optimised"),
    ]
    assert decode_events(encode_events(events)) == events
