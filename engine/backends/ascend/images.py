"""From the arrays that `Session.run` takes to the bytes that an .om model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine.backends.ascend.memory import Bytes
from tessera.engine.backends.ascend.model import OfflineTensor
from tessera.engine.errors import InputError, ModelError
from tessera.engine.normalisation import Normalisation
from tessera.engine.session import TensorSpec, check_batch


class ImageEncoder:
    """Checks images and writes them as a model takes them.

    With static AIPP a model takes uint8 [N, H, W, C] and normalises on the device; otherwise it takes float32 or
    float16 [N, C, H, W], and pixels are normalised here.

    Args:
        tensor: the model's input.
        normalisation: what pixels go through here; None when the model takes floats and was loaded without one.
        path: the .om file, for messages.

    Raises:
        ModelError: the input is no image.
    """

    def __init__(self, tensor: OfflineTensor, normalisation: Normalisation | None, path: Path) -> None:
        if len(tensor.shape) != 3:
            raise ModelError(f"{path}: input '{tensor.name}' has shape {['N', *tensor.shape]}, which is no image.")
        self._tensor = tensor
        self._has_aipp = tensor.dtype == np.uint8
        channels = tensor.shape[2] if self._has_aipp else tensor.shape[0]
        if normalisation is not None and len(normalisation.mean) != channels:
            raise ModelError(f"{path} takes {channels} channels; the normalisation is for {len(normalisation.mean)}.")
        self._normalisation = None if self._has_aipp else normalisation

    @property
    def takes_pixels(self) -> bool:
        """Whether uint8 [N, H, W, C] can be run."""
        return self._has_aipp or self._normalisation is not None

    @property
    def spec(self) -> TensorSpec:
        """The input, as the model has it."""
        return TensorSpec(self._tensor.name, (None, *self._tensor.shape), str(self._tensor.dtype))

    def check(self, x: npt.NDArray[Any]) -> None:
        """Check a batch.

        Raises:
            InputError: says what was given and what is expected.
        """
        if not self._has_aipp:
            check_batch(x, self.spec, self._normalisation)
            return
        if not isinstance(x, np.ndarray):
            raise InputError(f"Session.run takes a NumPy array, not {type(x).__name__}.")
        if x.dtype != np.uint8:
            raise InputError(f"Input '{self._tensor.name}' must be uint8 pixels, which AIPP normalises, not {x.dtype}.")
        if x.shape[1:] != self._tensor.shape or len(x) < 1:
            sizes = ", ".join(str(size) for size in self._tensor.shape)
            raise InputError(
                f"Input '{self._tensor.name}' must have shape [N, {sizes}] with N >= 1, not {list(x.shape)}."
            )

    def encode(self, images: npt.NDArray[Any], target: Bytes) -> int:
        """Write checked images to the beginning of `target`; returns how many bytes that are."""
        count = len(images) * self._tensor.image_bytes
        rows = target[:count].view(self._tensor.dtype).reshape(len(images), *self._tensor.shape)
        if images.dtype == np.uint8 and self._normalisation is not None:
            images = self._normalisation.apply(images)
        np.copyto(rows, images, casting="same_kind")
        return count
