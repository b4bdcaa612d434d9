"""The experiment as JSON: what `GET /v1/experiments` shows. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timezone

from tessera.app.routing.accumulators import Distribution
from tessera.app.routing.guard import Guard, GuardEvent, GuardState
from tessera.app.routing.router import REASONS, Decision, Router
from tessera.app.routing.shadow import ShadowRecord
from tessera.app.routing.split import KEY_HEADER
from tessera.models.evaluation.intervals import CONFIDENCE, Interval


def describe_split(router: Router, variants: Collection[str], *, tripped: bool) -> dict[str, object]:
    """The split as configured and as it is now."""
    return {
        "configured": router.configured_split(),
        "live": router.live_split(variants, tripped=tripped),
        "default_variant": router.plan.default,
        "key_header": KEY_HEADER,
        "salt": router.plan.salt,
    }


def describe_variant(name: str, requests: Mapping[Decision, int], latency: Distribution) -> dict[str, object]:
    """Answered requests of a variant, why it was chosen, and the time they took."""
    return {
        "requests": {
            "total": latency.count,
            "chosen_by": {reason: requests[Decision(name, reason)] for reason in REASONS},
        },
        "latency_ms": {
            "count": latency.count,
            "mean": _milliseconds(latency.mean()),
            "p50": _milliseconds(latency.quantile(0.5)),
            "p95": _milliseconds(latency.quantile(0.95)),
            "p99": _milliseconds(latency.quantile(0.99)),
        },
    }


def describe_shadow(share: float, record: ShadowRecord) -> dict[str, object]:
    """What the shadow compared, since the start."""
    return {
        "share": share,
        "images": dict(record.outcomes),
        "agreement": {**_interval(record.agreement(), "Wilson"), "images": record.compared},
        "logit_distance": {
            "mean": _rounded(record.distance.mean()),
            "p50": _rounded(record.distance.quantile(0.5)),
            "p95": _rounded(record.distance.quantile(0.95)),
            "p99": _rounded(record.distance.quantile(0.99)),
        },
        "speed_up": {
            **_interval(record.speed_up.interval(), "Student's t of the mean logarithm"),
            "pairs": record.speed_up.count,
        },
    }


def describe_guard(guard: Guard | None) -> dict[str, object]:
    """The guard's state, why it is so, and how it came about."""
    if guard is None:
        return {"state": "off", "why": "No bound is set (guard_agreement).", "history": []}
    return {
        "state": guard.state.value,
        "why": _why(guard),
        "bound": guard.bound,
        "window": guard.window,
        "recovery": "automatic" if guard.automatic else "manual",
        "agreement": {**_interval(guard.agreement(), "Wilson"), "images": guard.samples},
        "trips": guard.trips,
        "history": [_describe_event(event) for event in guard.history],
    }


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _why(guard: Guard) -> str:
    if guard.state is GuardState.WATCHING:
        return f"The last {guard.samples} compared images do not show an agreement below the bound of {guard.bound:g}."
    end = (
        f"It ends by itself when the next {guard.needed} compared images show an agreement above the bound."
        if guard.automatic
        else "It ends with POST /v1/experiments/guard/reset (an admin verb) or a restart."
    )
    tripped = next(event for event in reversed(guard.history) if event.event == "tripped")
    return f"{tripped.why} So requests that do not name a variant go to the baseline. {end}"


def _describe_event(event: GuardEvent) -> dict[str, object]:
    return {
        "at": timestamp(event.at),
        "event": event.event,
        "why": event.why,
        "agreement": {**_interval(event.agreement, "Wilson"), "images": event.samples},
    }


def _interval(interval: Interval | None, method: str) -> dict[str, object]:
    value, low, high = (None, None, None) if interval is None else map(_rounded, interval)
    return {"value": value, "low": low, "high": high, "confidence": CONFIDENCE, "method": method}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
