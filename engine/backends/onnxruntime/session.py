"""A model on ONNX Runtime's CPU provider: the baseline."""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.backends.onnxruntime.runtime import onnxruntime
from engine.errors import InputError, ModelError
from engine.graph.ir import Graph
from engine.graph.reader import read_model
from engine.normalisation import Normalisation
from engine.peak import measure_peak
from engine.profile import LayerCost, layer_costs
from engine.session import LayerTiming, Session, SessionInfo, TensorSpec, check_batch, unavailable


class OnnxRuntimeSession(Session):
    """Runs an ONNX file with every graph optimisation of ONNX Runtime switched on."""

    def __init__(self, path: Path, threads: int) -> None:
        """Loads the file.

        Raises:
            ModelError: ONNX Runtime cannot load it, or it is no image model with one input and one output.
        """
        self._path = path
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = _open(path, _options(threads))
        self._normalisation = Normalisation.from_metadata(self._session.get_modelmeta().custom_metadata_map)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is expected.")
        self._input, self._output = _spec(inputs[0]), _spec(outputs[0])

    @cached_property
    def _inspected(self) -> tuple[int, str]:
        """MACs of one image, and the precision. Reading all of the file again costs a third of loading it."""
        macs, quantised = _inspect(self._path)
        return macs, "int8" if quantised else "fp32"

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """See `Session.run`."""
        if self._session is None:
            raise unavailable(str(self._path))
        return _run(self._session, self._prepare(x), self._input.name)

    def _prepare(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        check_batch(x, self._input, self._normalisation)
        if x.dtype == np.uint8 and self._normalisation is not None:
            return self._normalisation.apply(x)
        return np.ascontiguousarray(x)

    def describe(self) -> SessionInfo:
        """See `Session.describe`."""
        macs, precision = self._inspected
        return SessionInfo(
            backend="onnxruntime",
            isa=f"onnxruntime {onnxruntime.__version__}",
            precision=precision,
            threads=self._threads,
            inputs=(self._input,),
            outputs=(self._output,),
            macs=macs,
            arena_bytes=0,
            normalises=self._normalisation is not None,
        )

    def peak(self) -> float:
        """See `Session.peak`. Measured."""
        return measure_peak(self._inspected[1], self._threads)

    def profile(self, x: npt.NDArray[Any], runs: int = 10) -> list[LayerTiming]:
        """See `Session.profile`. From ONNX Runtime's own profiler."""
        if runs < 1:
            raise InputError(f"profile needs at least one run, not {runs}.")
        batch = self._prepare(x)
        graph = read_model(self._path)
        costs = layer_costs(graph)
        peak = self.peak()
        rows = []
        for fused_name, op, times in _profile_nodes(self._path, self._threads, batch, self._input.name, runs):
            name = _origin(graph, fused_name)
            cost = costs.get(name, LayerCost(op, 0, 0, 0))
            rows.append(LayerTiming.measured(name, op, "onnxruntime", median(times) / 1e6, x.shape[0], cost, peak))
        return rows

    def close(self) -> None:
        """See `Session.close`."""
        self._session = None


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Its threads spin for the next piece of work; without this also after a run, on cores that the other variant needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # On x86 without VNNI its uint8 x int8 kernels saturate 16-bit sums, which changes answers; this makes them exact.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _open(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exception classes share no base but Exception
        raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error


def _run(session: onnxruntime.InferenceSession, batch: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    output = session.run(None, {name: batch})[0]
    return np.asarray(output, dtype=np.float32)


def _spec(argument: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorSpec(argument.name, (None, *shape[1:]) if shape else shape, "float32")


def _inspect(path: Path) -> tuple[int, bool]:
    """MACs of one image and whether the file is quantised; (0, False) for graphs that our reader does not know."""
    try:
        graph = read_model(path)
    except ModelError:
        return 0, False
    quantised = any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes)
    return sum(cost.macs for cost in layer_costs(graph).values()), quantised


def _origin(graph: Graph, fused_name: str) -> str:
    """The convolution or matrix product that a fused node was made from.

    ONNX Runtime names a fused node after the last node or value that it absorbed, "_nchwc" appended.
    """
    name = fused_name.removesuffix("_nchwc")
    node = next((node for node in graph.nodes if name in (node.name, *node.outputs)), None)
    while node is not None and node.op in ("BatchNormalization", "Relu", "Clip", "Add"):
        node = graph.producer(node.inputs[0])
    return name if node is None else node.name


def _profile_nodes(
    path: Path, threads: int, batch: npt.NDArray[np.float32], input_name: str, runs: int
) -> list[tuple[str, str, list[int]]]:
    """(name, operator, microseconds of each run) of every node, in the order of their first execution."""
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _open(path, options)
        for _ in range(runs + 1):
            _run(session, batch, input_name)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[str, tuple[str, list[int]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            nodes.setdefault(name, (event["args"]["op_name"], []))[1].append(event["dur"])
    return [(name, op, times[1:] or times) for name, (op, times) in nodes.items()]
