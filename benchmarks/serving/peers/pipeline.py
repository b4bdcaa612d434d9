"""What every peer does with a photo: decode as we do, OpenVINO int8, the same answer."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tessera.app.protocol.classify import Classified, build_answer
from tessera.models.preprocessing.transform import Preprocessing, geometry

MAX_BATCH = 16
THREADS = int(os.environ.get("SERVING_THREADS", "2"))  # of one copy of the model
WORKERS = int(os.environ.get("SERVING_WORKERS", "1"))  # copies of the model
DECODERS = int(os.environ.get("SERVING_DECODERS", "2"))
DEADLINE = float(os.environ.get("SERVING_DEADLINE", "10"))  # seconds, after which nobody waits for an answer
PORT = int(os.environ.get("SERVING_PORT", "0"))

_PREPROCESSING = Preprocessing()


class Decoded(NamedTuple):
    """A photo's pixels, uint8 [224, 224, 3], what they took to decode, and when they were ready."""

    pixels: np.ndarray
    seconds: float
    ready_at: float


@dataclass(frozen=True)
class Scored:
    """One photo's logits and timing."""

    logits: np.ndarray
    decode_seconds: float
    queue_seconds: float
    compute_seconds: float
    batch_size: int


def decode(data: bytes) -> Decoded:
    """JPEG to the network's input, normalisation apart, which is in the graph."""
    started = time.perf_counter()
    with Image.open(io.BytesIO(data)) as picture:
        place = geometry(*picture.size, _PREPROCESSING)
        left, top, (high, wide, _) = place.left, place.top, _PREPROCESSING.shape
        resized = picture.convert("RGB").resize((place.width, place.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized.crop((left, top, left + wide, top + high)))
    ended = time.perf_counter()
    return Decoded(pixels, ended - started, ended)


class Classifier:
    """OpenVINO's int8 model, warmed for every batch size.

    OpenVINO's documented settings for low latency with a batch per call: latency hint, one stream, threads as given.
    Normalisation is folded into its graph by its own preprocessor, so that pixels stay bytes between processes.
    """

    def __init__(self, threads: int = THREADS) -> None:
        import openvino
        from openvino.preprocess import ColorFormat, PrePostProcessor

        path = os.environ["SERVING_MODEL"]
        core = openvino.Core()
        steps = PrePostProcessor(core.read_model(path))
        tensor = steps.input().tensor()
        tensor.set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        tensor.set_color_format(ColorFormat.RGB)
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        scale = [255.0 * value for value in _PREPROCESSING.std]
        mean = [255.0 * value for value in _PREPROCESSING.mean]
        steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(scale)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        self._request = core.compile_model(steps.build(), "CPU", settings).create_infer_request()
        for batch in (*range(1, MAX_BATCH + 1), 1):
            self.run([Decoded(np.zeros((224, 224, 3), np.uint8), 0.0, 0.0)] * batch)

    def run(self, photos: Sequence[Decoded]) -> list[Scored]:
        """Classify a batch; one call at a time."""
        started = time.perf_counter()
        self._request.infer({0: np.stack([photo.pixels for photo in photos])}, share_inputs=True)
        logits = self._request.get_output_tensor().data.copy()
        seconds = time.perf_counter() - started
        return [
            Scored(row, photo.seconds, started - photo.ready_at, seconds, len(photos))
            for photo, row in zip(photos, logits, strict=True)
        ]


def answer(scored: Scored) -> dict[str, object]:
    """The JSON that we give too."""
    image = Classified(
        None, scored.logits, scored.decode_seconds, scored.queue_seconds, scored.compute_seconds, scored.batch_size
    )
    return build_answer("resnet50", "openvino", [image], _labels(), top_k=5)


@lru_cache
def _labels() -> list[str]:
    return Path(os.environ["SERVING_LABELS"]).read_text().splitlines()
