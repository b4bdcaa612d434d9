"""The split: exact proportions, stickiness, and no key leaving a variant whose share grows."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.errors import InvalidParameterError
from tessera.app.routing.split import Split, experiment_key, parse_split

KEYS = [f"user-{number}" for number in range(20_000)]

weights = st.floats(0, 1e6, allow_nan=False).map(lambda weight: weight if weight > 1e-3 else 0.0)
shares = st.dictionaries(st.sampled_from(["baseline", "optimised", "next", "other"]), weights, min_size=1).filter(
    lambda chosen: sum(chosen.values()) > 0
)
keys = st.text(min_size=1, max_size=50)


@pytest.mark.parametrize(
    "wanted", [{"baseline": 0.1, "optimised": 0.9}, {"a": 0.5, "b": 0.5}, {"a": 0.01, "b": 0.29, "c": 0.7}]
)
@pytest.mark.parametrize("salt", ["", "spring"])
def test_each_variant_gets_its_share(wanted: dict[str, float], salt: str) -> None:
    split = Split(wanted, salt)
    counts = dict.fromkeys(wanted, 0)
    for key in KEYS:
        counts[split.assign(key)] += 1
    for name, share in wanted.items():
        error = math.sqrt(share * (1 - share) / len(KEYS))
        assert abs(counts[name] / len(KEYS) - share) < 4 * error, counts


@given(shares, st.text(max_size=10), keys)
def test_a_key_stays_with_its_variant_in_every_process(wanted: dict[str, float], salt: str, key: str) -> None:
    chosen = Split(wanted, salt).assign(key)
    backwards = dict(reversed(wanted.items()))
    assert Split(backwards, salt).assign(key) == chosen
    assert wanted[chosen] > 0


@given(shares, st.floats(1, 1e3), keys, st.data())
def test_raising_a_share_moves_no_key_away_from_it(
    wanted: dict[str, float], factor: float, key: str, data: st.DataObject
) -> None:
    before = Split(wanted).assign(key)
    raised = data.draw(st.sampled_from(sorted(wanted)))
    after = Split({**wanted, raised: wanted[raised] * factor + 1}).assign(key)
    assert after in (before, raised), "keys move to the raised variant only, and from it never"


def test_a_ramp_moves_each_key_once() -> None:
    ramp = [Split({"baseline": 100 - percent, "optimised": percent}) for percent in range(0, 101, 5)]
    for key in KEYS[:500]:
        path = [split.assign(key) for split in ramp]
        assert path == sorted(path), "baseline first, then optimised, and never back"
        assert (path[0], path[-1]) == ("baseline", "optimised")


def test_another_salt_is_an_independent_assignment() -> None:
    even = {"a": 1.0, "b": 1.0}
    same = sum(Split(even, "one").assign(key) == Split(even, "two").assign(key) for key in KEYS)
    assert abs(same / len(KEYS) - 0.5) < 4 * math.sqrt(0.25 / len(KEYS))


def test_the_documented_formula() -> None:
    def time(variant: str, weight: float) -> float:
        bits = int.from_bytes(hashlib.sha256(f"spring\0{variant}\0user-7".encode()).digest()[:8], "big") >> 11
        return -math.log((bits + 0.5) / 2**53) / weight

    expected = min((time("baseline", 0.3), "baseline"), (time("optimised", 0.7), "optimised"))[1]
    assert Split({"baseline": 3, "optimised": 7}, "spring").assign("user-7") == expected
    # Assignments of a running experiment must survive an upgrade.
    even = Split({"baseline": 1, "optimised": 1})
    assert "".join(even.assign(f"user-{number}")[0] for number in range(24)) == FIRST_24


FIRST_24 = "bbbooooooobooooobooobboo"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimised=90,baseline=10", {"optimised": 0.9, "baseline": 0.1}),
        (" optimised = 1 , baseline = 3 ", {"optimised": 0.25, "baseline": 0.75}),
        ("optimised=1,baseline=0", {"optimised": 1.0, "baseline": 0.0}),
    ],
)
def test_weights_are_read(text: str, expected: dict[str, float]) -> None:
    assert parse_split(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "a", "a=", "=1", "a=x", "a=-1", "a=nan", "a=inf", "a=1,a=2", "a=0,b=0", "a=1,", "a=1;b=2"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"weight|twice|VARIANT=WEIGHT"):
        parse_split(text)


def test_the_key_header() -> None:
    assert experiment_key([]) is None
    assert experiment_key(["  "]) is None
    assert experiment_key([" mine ", "mine"]) == "mine"
    with pytest.raises(InvalidParameterError, match="X-Experiment-Key"):
        experiment_key(["mine", "yours"])
