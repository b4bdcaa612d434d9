"""The answer of POST /v1/classify: scores to probabilities to ranked labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from tessera.app.errors import InvalidParameterError
from tessera.app.scheduling.ticket import HeatMaps
from tessera.models.preprocessing.image_size import Size, parse_size, size_flag
from tessera.wording import counted

DEFAULT_TOP_K = 5
MOST_EXPLAINED = 10  # labels per image; 64 images of the largest maps are then a few megabytes


class HeatMap(TypedDict):
    """Where a label's score comes from: logit = bias + sum(values) / (height x width).

    `values` are the rows from top to bottom, over what the network sees.
    """

    logit: float
    bias: float
    height: int
    width: int
    values: list[float]


class _Ranked(TypedDict):
    rank: int
    index: int
    label: str
    probability: float


class Prediction(_Ranked, total=False):
    """One label and how likely it is, with its map where that was asked."""

    heat_map: HeatMap


class Timing(TypedDict):
    """Where an image's time went, in milliseconds, and how many images shared its batch."""

    decode_ms: float
    queue_ms: float
    compute_ms: float
    batch_size: int


class Classified(NamedTuple):
    """One image's scores and timing.

    Attributes:
        filename: As the client named it, or None.
        logits: float32 [classes].
        decode_seconds: Decoding, resizing and cropping.
        queue_seconds: Waiting for its batch.
        compute_seconds: Run time of its batch.
        batch_size: Images in its batch.
        heat_maps: Where the highest scores come from, if that was asked.
    """

    filename: str | None
    logits: np.ndarray
    decode_seconds: float
    queue_seconds: float
    compute_seconds: float
    batch_size: int
    heat_maps: HeatMaps | None = None


def resolve_top_k(sent: str | None, classes: int) -> int:
    """Turn the query parameter into a count.

    Args:
        sent: Its text, or None when it is absent: then 5, or all classes when there are fewer.
        classes: How many classes the model has.

    Raises:
        InvalidParameterError: It is not a whole number from 1 to `classes`.
    """
    if sent is None:
        return min(DEFAULT_TOP_K, classes)
    if sent.isascii() and sent.isdigit() and len(sent) <= 9 and 1 <= int(sent) <= classes:
        return int(sent)
    raise InvalidParameterError(f"top_k must be a whole number from 1 to {classes}, the model's number of classes.")


def resolve_explain(sent: str | None, top_k: int) -> int:
    """Turn the query parameter into the number of labels that are explained: all that are given, or none.

    Args:
        sent: Its text, or None when it is absent.
        top_k: How many labels are given.

    Raises:
        InvalidParameterError: It is not 0 or 1, or so many maps would be an answer that nobody looks at.
    """
    if sent not in (None, "0", "1"):
        raise InvalidParameterError("explain must be 1, for a heat map of every label in the answer, or 0.")
    if sent == "1" and top_k > MOST_EXPLAINED:
        most = counted(MOST_EXPLAINED, "label")
        raise InvalidParameterError(f"explain=1 gives heat maps of at most {most}; set top_k so.")
    return top_k if sent == "1" else 0


def resolve_size(sent: str | None, sizes: Sequence[Size]) -> Size | None:
    """Turn the query parameter into a further size of the model's images; None for the usual one.

    Args:
        sent: Its text, or None when it is absent.
        sizes: The model's, the usual one first.

    Raises:
        InvalidParameterError: It is none of them.
    """
    if sent is None:
        return None
    try:
        size = parse_size(sent)
    except ValueError:
        size = None
    if size not in sizes:
        known = ", ".join(map(size_flag, sizes))
        raise InvalidParameterError(f"size must be one that this model is served at: {known}.")
    return None if size == sizes[0] else size


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits [classes] into float64 probabilities [classes] that sum to 1."""
    exponentials = np.exp(logits.astype(np.float64) - float(np.maximum.reduce(logits)))
    probabilities: np.ndarray = exponentials / np.add.reduce(exponentials)
    return probabilities


def top_predictions(logits: np.ndarray, labels: Sequence[str], top_k: int) -> list[Prediction]:
    """Rank the `top_k` most likely classes; equal scores keep the order of the classes."""
    order = (-logits).argsort(kind="stable")[:top_k]
    probabilities = softmax(logits)[order].tolist()
    return [
        {"rank": rank, "index": index, "label": labels[index], "probability": round(probability, 6)}
        for rank, (index, probability) in enumerate(zip(order.tolist(), probabilities, strict=True), start=1)
    ]


def build_answer(
    model: str, variant: str, images: Sequence[Classified], labels: Sequence[str], top_k: int
) -> dict[str, object]:
    """Build the JSON body of a successful answer."""
    return {"model": model, "variant": variant, "results": [_result(image, labels, top_k) for image in images]}


def _result(image: Classified, labels: Sequence[str], top_k: int) -> dict[str, object]:
    result: dict[str, object] = {} if image.filename is None else {"filename": image.filename}
    predictions = result["predictions"] = top_predictions(image.logits, labels, top_k)
    if image.heat_maps is not None:
        for prediction, index, *one in zip(predictions, *image.heat_maps, strict=True):
            assert prediction["index"] == index, "both are sorted alike"
            prediction["heat_map"] = _heat_map(float(image.logits[index]), *one)
    result["timing"] = Timing(
        decode_ms=_milliseconds(image.decode_seconds),
        queue_ms=_milliseconds(image.queue_seconds),
        compute_ms=_milliseconds(image.compute_seconds),
        batch_size=image.batch_size,
    )
    return result


def _heat_map(logit: float, bias: np.floating[Any], values: np.ndarray) -> HeatMap:
    height, width = values.shape
    return {
        "logit": round(logit, 5),
        "bias": round(float(bias), 5),
        "height": height,
        "width": width,
        "values": [round(value, 4) for value in values.ravel().tolist()],
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
