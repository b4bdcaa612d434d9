"""The Ascend backend: what is missing on machines without CANN."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

from engine.errors import BackendUnavailableError
from engine.normalisation import Normalisation
from engine.session import Session


def open_session(path: Path, *, graph: Path | None = None, normalisation: Normalisation | None = None) -> Session:
    """Opens an .om model on an Ascend NPU.

    Args:
        path: the .om file.
        graph: the ONNX graph that it was converted from; MACs and layer costs come from it.
        normalisation: what uint8 images go through where the .om file takes floats.

    Raises:
        BackendUnavailableError: the AscendCL library is not installed here.
    """
    library = ctypes.util.find_library("ascendcl")
    found = f"found {library}, which this version does not drive yet" if library else "found no libascendcl.so"
    raise BackendUnavailableError(
        f"Backend 'ascend' cannot open {path.name}: {found}. It needs an Ascend NPU with its driver and the CANN "
        "toolkit (source its set_env.sh so that libascendcl.so is on LD_LIBRARY_PATH). "
        "Use backend='cpu' or 'onnxruntime' on this machine."
    )
