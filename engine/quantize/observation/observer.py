"""Running a network on calibration images and looking at values inside it, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tessera.engine.errors import InputError, ModelError
from tessera.engine.graph.ir import Graph
from tessera.engine.quantize.network.sessions import open_session

# Intermediate values of a large network are a hundred megabytes per image; one at a time is no slower.
_CHUNK = 1


class Observer:
    """Runs a network on one thread, the caller's; several callers may run it at once.

    Args:
        graph: the network.
        outputs: the values that are looked at.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """

    def __init__(self, graph: Graph, outputs: Iterable[str]) -> None:
        try:
            self._session = open_session(graph, outputs)
        except ModelError:  # says it itself
            raise
        except Exception as error:  # the runtime's exceptions share no base class
            raise ModelError(f"ONNX Runtime cannot run the model that is to be calibrated: {error}") from error
        self._source = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The model's outputs by name for float32 images [n, C, H, W].

        Raises:
            InputError: the images do not fit the model.
        """
        try:
            values = self._session.run(self._names, {self._source: images})
        except Exception as error:  # as above
            raise InputError(f"The model cannot run on images of shape {images.shape}: {error}") from error
        return dict(zip(self._names, values, strict=True))


def chunks(images: Iterable[NDArray[np.float32]], size: int = _CHUNK) -> Iterator[NDArray[np.float32]]:
    """Check the images and cut them into pieces of at most `size`.

    Raises:
        InputError: an item is not a finite float32 array [n, C, H, W].
    """
    for batch in images:
        if not isinstance(batch, np.ndarray) or batch.dtype != np.float32 or batch.ndim != 4:
            found = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise InputError(f"Calibration images must be float32 arrays [n, C, H, W]; got {found}.")
        if not np.isfinite(batch).all():
            raise InputError("A calibration image holds values that are not finite. Normalise 8-bit pixels instead.")
        for start in range(0, len(batch), size):
            yield np.ascontiguousarray(batch[start : start + size])
