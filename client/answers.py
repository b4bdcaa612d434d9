"""Answers of the service, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tessera.client.errors import RefusedError


@dataclass(frozen=True)
class Prediction:
    """One label and how likely it is.

    Attributes:
        rank: 1 for the most likely.
        index: Its place among the model's classes.
        label: Its name.
        probability: From 0 to 1.
    """

    rank: int
    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Timing:
    """Where an image's time in the service went, in milliseconds, and how many images shared its batch."""

    decode_ms: float
    queue_ms: float
    compute_ms: float
    batch_size: int


@dataclass(frozen=True)
class Classification:
    """What one image shows.

    Attributes:
        predictions: The most likely labels, the likeliest first.
        model: The model's name.
        variant: Who answered.
        timing: Where the time went.
    """

    predictions: tuple[Prediction, ...]
    model: str
    variant: str
    timing: Timing

    @property
    def label(self) -> str:
        """The likeliest label."""
        return self.predictions[0].label

    @property
    def probability(self) -> float:
        """How likely that is, from 0 to 1."""
        return self.predictions[0].probability


def read_answer(response: httpx.Response) -> list[Classification]:
    """The classifications of a response with status 200, in the order of the images.

    Raises:
        RefusedError: It is no answer of the service.
    """
    try:
        body = response.json()
        return [_classification(body, result) for result in body["results"]]
    except (ValueError, LookupError, TypeError) as error:
        raise RefusedError(f"{response.url} gave no answer of Tessera ({error!r}).", 200, "", "") from error


def read_error(response: httpx.Response) -> RefusedError:
    """The error that a response with another status tells."""
    try:
        body = response.json()
        message, code, request_id = str(body["error"]), str(body["code"]), str(body["request_id"])
    except (ValueError, LookupError, TypeError):
        message, code, request_id = f"{response.url} answered {response.status_code}: {response.text[:200]}", "", ""
    return RefusedError(message, response.status_code, code, request_id)


def _classification(body: dict[str, Any], result: dict[str, Any]) -> Classification:
    # By name, so that what a later service adds is no error.
    predictions = tuple(
        Prediction(entry["rank"], entry["index"], entry["label"], entry["probability"])
        for entry in result["predictions"]
    )
    spent = result["timing"]
    timing = Timing(spent["decode_ms"], spent["queue_ms"], spent["compute_ms"], spent["batch_size"])
    return Classification(predictions, body["model"], body["variant"], timing)
