"""Loading a model: the backends that open its kind of file, in turn."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from tessera.engine.backends import BACKENDS, Backend, LoadOptions
from tessera.engine.budget import cpu_budget
from tessera.engine.errors import ModelError, UnsupportedModelError
from tessera.engine.normalisation import Normalisation
from tessera.engine.session import Precision, Session


def load(
    model: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
    graph: str | Path | None = None,
    normalisation: Normalisation | None = None,
) -> Session:
    """Loads a model.

    Args:
        model: an .onnx file, or an .om file for Ascend.
        backend: "cpu" for our engine, "onnxruntime", "ascend"; "auto" takes our engine and falls back to ONNX Runtime
            for graphs that it does not run, never to a wrong answer.
        threads: threads of one run; None for every core this process may use.
        precision: what values that the file does not quantise run in: "fp32" or "bf16"; "auto" is what the file
            asks for (metadata `tessera.float_precision`), else "fp32". Where bf16 products are slower than fp32 ones
            (`tessera.engine.rates`), "bf16" runs in fp32. "int8" is the same for quantised files and
            refuses others. Of an .om file, which does not tell, "int8" states what it is.
        graph: the ONNX graph that an .om file was converted from, for its MACs and layers, which .om files do not tell.
        normalisation: of the images of an .om file that takes floats; ONNX files carry their own.

    Raises:
        ModelError: the file is missing, corrupt or outside what the backend runs.
        BackendUnavailableError: the backend cannot work on this machine.
        ValueError: an unknown backend or precision, or threads below 1.
    """
    path = Path(model)
    candidates = _candidates(backend, path)
    if precision not in get_args(Precision):
        raise ValueError(f"Unknown precision '{precision}'; use auto, int8, bf16 or fp32.")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}.")
    if not path.is_file():
        raise ModelError(f"There is no model file at {path}.")
    count = threads if threads is not None else cpu_budget()
    options = LoadOptions(count, precision, None if graph is None else Path(graph), normalisation)
    return _open(candidates, path, options)


def obstacle(model: str | Path) -> str:
    """What keeps our engine from running a file, in one sentence without its last dot; empty where it runs it."""
    try:
        with load(model, backend="cpu", threads=1) as session:
            for size in session.describe().sizes[1:]:
                session.at(*size).close()
    except UnsupportedModelError as error:
        return error.brief
    except ModelError as error:
        return str(error).removesuffix(".")
    return ""


def _open(candidates: list[Backend], path: Path, options: LoadOptions) -> Session:
    first, *others = candidates
    try:
        return first.open(path, options)
    except ModelError:
        # A precision that was asked for is not swapped for another backend's.
        if not others or options.precision != "auto":
            raise
    return _open(others, path, options)


def _candidates(backend: str, path: Path) -> list[Backend]:
    """The backends to try, at least one."""
    if backend == "auto":
        # A file without a telling name is taken for ONNX.
        suffix = path.suffix if any(path.suffix in known.suffixes for known in BACKENDS.values()) else ".onnx"
        return [known for known in BACKENDS.values() if suffix in known.suffixes]
    if backend not in BACKENDS:
        *names, last = ("auto", *BACKENDS)
        raise ValueError(f"Unknown backend '{backend}'; use {', '.join(names)} or {last}.")
    return [BACKENDS[backend]]
