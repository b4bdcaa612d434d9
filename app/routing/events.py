"""What happens to an experiment, and how it travels between processes: JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tessera.app.routing.router import Decision
from tessera.app.routing.shadow import Comparison


@dataclass(frozen=True)
class Answered:
    """A request was answered with success.

    Attributes:
        decision: Who answered, and why this variant.
        seconds: From its headers to its answer.
    """

    decision: Decision
    seconds: float


@dataclass(frozen=True)
class Compared:
    """A shadow image was compared.

    Attributes:
        comparison: The comparison.
        image: Digest of its pixels.
    """

    comparison: Comparison
    image: bytes


@dataclass(frozen=True)
class NotCompared:
    """Images that were chosen for the shadow were not compared.

    Attributes:
        outcome: `dropped` or `failed`, see `shadow.OUTCOMES`.
        images: How many.
    """

    outcome: str
    images: int = 1


@dataclass(frozen=True)
class Loaded:
    """A variant was loaded from its files while the service answered; it may be another network now.

    Attributes:
        variant: Which.
    """

    variant: str


Event = Answered | Compared | NotCompared | Loaded


def encode_events(events: Sequence[Event]) -> bytes:
    """Events as JSON."""
    return json.dumps([_encode(event) for event in events]).encode()


def decode_events(data: bytes) -> list[Event]:
    """The inverse of `encode_events`."""
    return [_decode(entry) for entry in json.loads(data)]


def _encode(event: Event) -> list[Any]:
    if isinstance(event, Answered):
        return ["answered", *event.decision, event.seconds]
    if isinstance(event, Compared):
        return ["compared", *event.comparison, event.image.hex()]
    if isinstance(event, Loaded):
        return ["loaded", event.variant]
    return ["not compared", event.outcome, event.images]


def _decode(entry: list[Any]) -> Event:
    kind, *fields = entry
    if kind == "answered":
        variant, reason, seconds = fields
        return Answered(Decision(variant, reason), seconds)
    if kind == "compared":
        *comparison, image = fields
        return Compared(Comparison(*comparison), bytes.fromhex(image))
    return Loaded(*fields) if kind == "loaded" else NotCompared(*fields)
