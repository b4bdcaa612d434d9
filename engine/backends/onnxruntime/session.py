"""A model on ONNX Runtime's CPU provider: the baseline."""

from __future__ import annotations

import json
import mmap
import re
import tempfile
import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tessera.engine import _native
from tessera.engine.backends.onnxruntime.explaining import (
    ExplainingSession,
    explains,
    head_of,
    with_output,
)
from tessera.engine.backends.onnxruntime.plain_qdq import plain_qdq
from tessera.engine.backends.onnxruntime.runtime import onnxruntime
from tessera.engine.errors import InputError, ModelError
from tessera.engine.file_state import check_unchanged, file_state
from tessera.engine.graph.ir import Graph
from tessera.engine.graph.protos import computes_in_integers
from tessera.engine.graph.reader import read_model
from tessera.engine.head import HeatMaps
from tessera.engine.normalisation import Normalisation
from tessera.engine.peak import ReadRates, measure_peak, measure_reads
from tessera.engine.profile import LayerCost, layer_costs
from tessera.engine.session import (
    LayerTiming,
    Session,
    SessionInfo,
    Slice,
    TensorSpec,
    check_batch,
    no_explanation,
    unavailable,
)
from tessera.engine.sizes import HeightWidth, sizes_of
from tessera.wording import counted

_KERNEL_TIME = "_kernel_time"  # how its profiler ends the names of nodes


class OnnxRuntimeSession(Session):
    """Runs an ONNX file with every graph optimisation of ONNX Runtime switched on."""

    def __init__(self, path: Path, threads: int) -> None:
        """Loads the file.

        Raises:
            ModelError: ONNX Runtime cannot load it, or it is no image model with one input and one output.
        """
        self._path = path
        self._threads = threads
        self._state = file_state(path)
        self._model = _loadable(path)
        self._session: onnxruntime.InferenceSession | None = _open(path, self._model, threads)
        self._normalisation = Normalisation.from_metadata(self._session.get_modelmeta().custom_metadata_map)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"{path} has {counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}; one of "
                "each is expected."
            )
        self._input, self._output = _spec(inputs[0]), _spec(outputs[0])
        self._size: HeightWidth | None = None
        self._sizes: tuple[HeightWidth, ...] = ()
        if len(self._input.shape) == 4 and None in self._input.shape[2:]:
            self._sizes = sizes_of(self._session.get_modelmeta().custom_metadata_map)
            self._bind(next(iter(self._sizes), None))
        self._first: OnnxRuntimeSession | None = None
        self._explaining: ExplainingSession | None = None
        self._preparing = threading.Lock()
        first = next(iter(inputs[0].shape or ()), None)
        self._only_batch = first if isinstance(first, int) and first > 0 else None

    def _bind(self, size: HeightWidth | None) -> None:
        """Take images of this size only; None: of any."""
        self._size = size
        if size is not None:
            self._input = replace(self._input, shape=(*self._input.shape[:2], *size))

    def at(self, height: int, width: int) -> Session:
        """See `Session.at`. ONNX Runtime runs any size in one session; the result checks and describes its own."""
        first = self._first or self
        if first._size is None:
            return super().at(height, width)
        if first._session is None:
            raise unavailable(str(self._path))
        check_unchanged(self._path, self._state)
        other = copy(first)
        other.__dict__.pop("_inspected", None)
        other._first = first
        other._bind((height, width))
        return other

    @cached_property
    def _inspected(self) -> tuple[int, str, bool]:
        """MACs of one image, precision, and whether it explains. Reading the file again costs a third of loading it."""
        macs, precision, can_explain = _inspect(self._path, self._size)
        return macs, precision, can_explain and self._only_batch is None

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """See `Session.run`."""
        if self._session is None:
            raise unavailable(str(self._path))
        batch = self._prepare(x)
        try:
            return _run_in_parts(self._session, batch, self._input.name, self._only_batch or len(batch))
        except Exception as error:  # ONNX Runtime's exception classes share no base but Exception
            raise ModelError(f"ONNX Runtime cannot run {self._path}: {error}") from error

    def explain(self, x: npt.NDArray[Any], top: Sequence[int]) -> tuple[npt.NDArray[np.float32], list[HeatMaps | None]]:
        """See `Session.explain`. In a session of its own, because an output more would cost every run."""
        if self._session is None:
            raise unavailable(str(self._path))
        first = self._first or self
        explaining = first._explaining or first._prepare_explaining()
        batch = self._prepare(x)
        try:
            scores, features = explaining.run(batch)
        except Exception as error:  # ONNX Runtime's exception classes share no base but Exception
            raise ModelError(f"ONNX Runtime cannot run {self._path}: {error}") from error
        return scores, explaining.head.explain(features, scores, top)

    def prepare_explaining(self) -> None:
        """See `Session.prepare_explaining`. Takes as long as loading, and as much memory again until `close`."""
        (self._first or self)._prepare_explaining()

    def _prepare_explaining(self) -> ExplainingSession:
        with self._preparing:
            if self._explaining is not None:
                return self._explaining
            if not self._inspected[2]:
                raise no_explanation()
            check_unchanged(self._path, self._state)
            head = head_of(self._path)
            session = _open(self._path, with_output(self._model, head.features), self._threads)
            made = ExplainingSession(session, head)
            _native.trim_heap()  # the file's bytes, as often as they were read
            if self._session is not None:  # not closed meanwhile
                self._explaining = made
            return made

    def _prepare(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        check_batch(x, self._input, self._normalisation)
        if x.dtype == np.uint8 and self._normalisation is not None:
            return self._normalisation.apply(x)
        return np.ascontiguousarray(x)

    def describe(self) -> SessionInfo:
        """See `Session.describe`."""
        macs, precision, can_explain = self._inspected
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
            explains=can_explain,
            sizes=self._sizes,
        )

    def peak(self) -> float:
        """See `Session.peak`. Measured."""
        return measure_peak(self._inspected[1], self._threads)

    def reads(self) -> ReadRates:
        """See `Session.reads`."""
        return measure_reads(self._threads)

    def profile(self, x: npt.NDArray[Any], runs: int = 10) -> list[LayerTiming]:
        """See `Session.profile`. From ONNX Runtime's own profiler."""
        if runs < 1:
            raise InputError(f"profile needs at least one run, not {runs}.")
        batch = self._prepare(x)
        graph = _read(self._path, self._size)
        costs = {} if graph is None else layer_costs(graph)
        peak, reads = self.peak(), self.reads()
        rows = []
        for fused_name, op, times in self._profile_nodes(batch, runs):
            name = fused_name if graph is None else _origin(graph, fused_name)
            cost = costs.get(name, LayerCost(op, 0, 0, 0))
            seconds = median(times) / 1e6
            rows.append(LayerTiming.measured(name, op, "onnxruntime", seconds, x.shape[0], cost, peak, reads))
        return rows

    def trace(self, x: npt.NDArray[Any]) -> list[Slice]:
        """See `Session.trace`. ONNX Runtime tells of the calling thread only."""
        batch = self._prepare(x)
        graph = _read(self._path, self._size)
        events = self._node_events(batch, runs=1)
        last_run = events[len(events) // 2 :]
        began = last_run[0]["ts"] if last_run else 0
        return [
            Slice(
                name=_node_name(event) if graph is None else _origin(graph, _node_name(event)),
                op=event["args"]["op_name"],
                kernel="onnxruntime",
                thread=0,
                start=(event["ts"] - began) / 1e6,
                seconds=event["dur"] / 1e6,
            )
            for event in last_run
        ]

    def _profile_nodes(self, batch: npt.NDArray[np.float32], runs: int) -> list[tuple[str, str, list[int]]]:
        """(name, operator, microseconds of each run) of every node, in the order of their first execution."""
        nodes: dict[str, tuple[str, list[int]]] = {}
        for event in self._node_events(batch, runs):
            nodes.setdefault(_node_name(event), (event["args"]["op_name"], []))[1].append(event["dur"])
        return [(name, op, times[1:] or times) for name, (op, times) in nodes.items()]

    def _node_events(self, batch: npt.NDArray[np.float32], runs: int) -> list[dict[str, Any]]:
        """What the profiler of ONNX Runtime says of every node, of one run to warm up and `runs` after it."""
        with tempfile.TemporaryDirectory() as folder:
            session = _open(self._path, self._model, self._threads, Path(folder) / "profile")
            for _ in range(runs + 1):
                _run_in_parts(session, batch, self._input.name, self._only_batch or len(batch))
            events = json.loads(Path(session.end_profiling()).read_text())
        return [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_TIME)]

    def close(self) -> None:
        """See `Session.close`."""
        self._session = self._explaining = None


def _node_name(event: dict[str, Any]) -> str:
    name: str = event["name"]
    return name.removesuffix(_KERNEL_TIME)


def _options(threads: int, folder: Path, *, exact: bool, fused: bool = True) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_ENABLE_BASIC
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and said by whoever asked for it
    # For models that are given as bytes; those in files say where they are.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    # Its threads spin for the next piece of work; without this also after a run, on cores that the other variant needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has a product of uint8 and int8 that does not saturate. Unknown counts as no."""
    try:
        return re.search(r"\bavx(512)?_vnni\b", cpuinfo.read_text()) is not None
    except OSError:
        return False


def _open(path: Path, model: str | bytes, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """Opens a model as exact and as fast as ONNX Runtime can.

    On x86 without VNNI its uint8 x int8 kernels saturate 16-bit sums, which changes answers. An option makes them exact
    by transformations that some files do not survive: those with int8 activations in quantised operators, whose kernels
    are exact anyway. With VNNI the option would cost speed for nothing. The last resort is a session without fusions.
    """
    failures = []
    for exact, fused in dict.fromkeys([(not has_vnni(), True), (False, True), (False, False)]):
        options = _options(threads, path.parent, exact=exact, fused=fused)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception classes share no base but Exception
            failures.append(error)
    raise ModelError(f"ONNX Runtime cannot load {path}: {failures[0]}") from failures[0]


def _run(session: onnxruntime.InferenceSession, batch: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    output = session.run(None, {name: batch})[0]
    return np.asarray(output, dtype=np.float32)


def _run_in_parts(
    session: onnxruntime.InferenceSession, batch: npt.NDArray[np.float32], name: str, size: int
) -> npt.NDArray[np.float32]:
    """Runs `size` images at a time; the last run is filled up with its last image."""
    if len(batch) == size:
        return _run(session, batch, name)
    filled = np.concatenate([batch, np.repeat(batch[-1:], -len(batch) % size, axis=0)])
    parts = [_run(session, filled[start : start + size], name) for start in range(0, len(filled), size)]
    return np.concatenate(parts)[: len(batch)]


def _spec(argument: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorSpec(argument.name, (None, *shape[1:]) if shape else shape, "float32")


def _loadable(path: Path) -> str | bytes:
    """What to give to ONNX Runtime: the file, or a form of it that its transformers survive.

    Only files that name the operators are read for it.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(b"uantizeLinear") < 0:  # of DequantizeLinear too
                return str(path)
        return plain_qdq(path, read_model(path)) or str(path)
    except (ModelError, ValueError):  # not known to our reader, or empty
        return str(path)


def _inspect(path: Path, size: HeightWidth | None) -> tuple[int, str, bool]:
    """MACs of one image, precision, whether it explains; 0 and no for graphs that our reader does not know."""
    graph = _read(path, size)
    if graph is None:
        return 0, "int8" if computes_in_integers(onnx.load(path, load_external_data=False)) else "fp32", False
    quantised = any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes)
    macs = sum(cost.macs for cost in layer_costs(graph).values())
    return macs, "int8" if quantised else "fp32", explains(path, graph)


def _read(path: Path, size: HeightWidth | None) -> Graph | None:
    """The file as our reader sees it; None where it does not know it."""
    try:
        return read_model(path, size)
    except ModelError:
        return None


def _origin(graph: Graph, fused_name: str) -> str:
    """The convolution or matrix product that a fused node was made from.

    ONNX Runtime names a fused node after the last node or value that it absorbed, "_nchwc" appended.
    """
    name = fused_name.removesuffix("_nchwc")
    node = next((node for node in graph.nodes if name in (node.name, *node.outputs)), None)
    while node is not None and node.op in ("BatchNormalization", "Relu", "Clip", "Add"):
        node = graph.producer(node.inputs[0])
    return name if node is None else node.name
