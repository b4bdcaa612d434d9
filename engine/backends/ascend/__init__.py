"""Ascend NPUs: .om files run through AscendCL, which is called with ctypes.

From the outside in: `session` (the interface of all backends) cuts batches into gears (`gears`), writes images as the
model takes them (`images`) and asks the `rotation` for a slot of a device. A `replica` is the model on one device; its
`lane`s hold the loaded `model`, its streams and staging buffers (`memory`). `runtime` is AscendCL in this process,
`library` finds and calls it by the types in `prototypes`.
"""

from __future__ import annotations

from pathlib import Path

from engine.backends.ascend.session import AscendSession
from engine.normalisation import Normalisation
from engine.session import Session

__all__ = ["AscendSession", "open_session"]


def open_session(
    path: Path, *, graph: Path | None = None, normalisation: Normalisation | None = None, int8: bool = False
) -> Session:
    """Opens an .om model on every Ascend device that this process may see.

    Args:
        path: the .om file.
        graph: the ONNX graph that it was converted from; MACs come from it.
        normalisation: what uint8 images go through where the .om file takes floats.
        int8: whether its convolutions compute in int8, which the file does not tell.

    Raises:
        ModelError: the file is no .om file, is damaged, or is no image classifier.
        DeviceError: a device cannot be opened, or fails.
        BackendUnavailableError: there is no AscendCL on this machine, or no device.
    """
    return AscendSession(path, graph=graph, normalisation=normalisation, int8=int8)
