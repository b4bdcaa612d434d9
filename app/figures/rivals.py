"""Other engines on the same model, where they are installed: what a report compares with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera import engine
from tessera.app.settings import Settings
from tessera.engine.graph.reader import read_model
from tessera.engine.profile import layer_costs
from tessera.models.registry import Model

Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

_PACKAGES = ("numpy", "onnxruntime", "openvino", "torch")


def versions() -> dict[str, str]:
    """Of every package that takes part, where it is installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def open_rivals(
    model: Model, settings: Settings, opened: ExitStack
) -> tuple[dict[str, engine.Session], dict[str, str]]:
    """Open every other engine on the files of the model's variants.

    Args:
        model: The model.
        settings: How many threads.
        opened: Closes them.

    Returns:
        Sessions by name, and why others are left out.
    """
    base, optimised = model.variants["baseline"], model.variants["optimised"]
    threads = settings.threads or engine.cpu_budget()
    openers: dict[str, Callable[[], engine.Session]] = {
        "OpenVINO fp32": lambda: OpenVino(base.path, base.precision, threads),
        "PyTorch fp32": lambda: _Torch(base.path, base.precision, threads),
    }
    if optimised.precision == "int8" and optimised.path.suffix == ".onnx":
        openers["ONNX Runtime int8"] = lambda: engine.load(optimised.path, backend="onnxruntime", threads=threads)
        openers["OpenVINO int8"] = lambda: OpenVino(optimised.path, optimised.precision, threads)
    sessions, left_out = {}, {}
    for name, opener in sorted(openers.items()):
        try:
            sessions[name] = opened.enter_context(opener())
        except ImportError as error:
            left_out[name] = f"{error.name} is not installed"
        except Exception as error:  # each engine has its own exceptions; a report without one of them is still one
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return sessions, left_out


class _Rival(engine.Session):
    """What all have in common: floats in, logits out, and MACs from the file."""

    def __init__(self, path: Path, precision: str, threads: int, backend: str, isa: str) -> None:
        graph = read_model(path)
        self._info = engine.SessionInfo(
            backend=backend,
            isa=isa,
            precision=precision,
            threads=threads,
            inputs=(engine.TensorSpec(graph.inputs[0], graph.values[graph.inputs[0]].shape, "float32"),),
            outputs=(engine.TensorSpec(graph.outputs[0], graph.values[graph.outputs[0]].shape, "float32"),),
            macs=sum(cost.macs for cost in layer_costs(graph).values()),
            arena_bytes=0,
            normalises=False,
            explains=False,
        )

    def describe(self) -> engine.SessionInfo:
        return self._info

    def peak(self) -> float:
        return engine.measure_peak(self._info.precision, self._info.threads)

    def profile(self, x: npt.NDArray[Any], runs: int = 10) -> list[engine.LayerTiming]:
        return []

    def close(self) -> None:
        """Nothing outlives the object."""


class OpenVino(_Rival):
    """OpenVINO with static batch, latency hint, one stream: its fastest setting for one request at a time.

    Args:
        path: ONNX file.
        precision: "fp32", or "int8" for a file that is quantised.
        threads: how many.

    Raises:
        ImportError: OpenVINO is not installed.
    """

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        openvino = importlib.import_module("openvino")
        super().__init__(path, precision, threads, "openvino", f"openvino {version('openvino')}")
        self._core = openvino.Core()
        self._path = path
        self._settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        if precision == "fp32":
            self._settings["INFERENCE_PRECISION_HINT"] = "f32"
        self._requests: dict[int, Any] = {}

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """See `Session.run`; each batch size is compiled once."""
        request = self._requests.get(len(x))
        if request is None:
            model = self._core.read_model(self._path)
            model.reshape(list(x.shape))
            request = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
            self._requests[len(x)] = request
        request.infer({0: x}, share_inputs=True)
        logits: npt.NDArray[np.float32] = request.get_output_tensor().data.copy()
        return logits


class _Torch(_Rival):
    """PyTorch's operators one after the other, channels last: what a script in eager mode gets at best."""

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        torch = importlib.import_module("torch")
        super().__init__(path, precision, threads, "torch", f"torch {version('torch')}, eager")
        from tessera.models.torch_graph import TorchGraph

        torch.set_num_threads(threads)
        self._graph = TorchGraph(path)

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return self._graph.run(x)
