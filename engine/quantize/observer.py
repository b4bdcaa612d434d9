"""Running a network on calibration images and looking at values inside it, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from engine.errors import InputError, ModelError
from engine.onnx_runtime import onnxruntime

# Intermediate values of a large network are tens of megabytes per image; a few images at a time keep memory flat.
_CHUNK = 4


def observe(
    model: onnx.ModelProto, images: Iterable[NDArray[np.float32]], threads: int | None = None
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run the model on the images, a few at a time, and yield its outputs by name.

    Raises:
        ModelError: ONNX Runtime cannot load or run the model.
        InputError: a chunk of images does not fit the model.
    """
    session = _session(model, threads)
    source = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    for chunk in chunks(images):
        try:
            values = session.run(names, {source: chunk})
        except Exception as error:  # the runtime's exceptions share no base class
            raise InputError(f"The model cannot run on images of shape {chunk.shape}: {error}") from error
        yield dict(zip(names, values, strict=True))


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


def _session(model: onnx.ModelProto, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's exceptions share no base class
        raise ModelError(f"ONNX Runtime cannot run the model that is to be calibrated: {error}") from error
