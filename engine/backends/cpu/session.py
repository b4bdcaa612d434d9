"""A model on our own engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine import _native
from tessera.engine.backends.cpu.arena import place_tensors
from tessera.engine.backends.cpu.layout import choose_blocks, lay_out
from tessera.engine.backends.cpu.plan import ExecutionPlan
from tessera.engine.backends.cpu.planner import plan_graph
from tessera.engine.backends.cpu.program import fill_program
from tessera.engine.backends.cpu.segments import cut_segments
from tessera.engine.backends.cpu.tensor import Precision
from tessera.engine.errors import InputError, ModelError
from tessera.engine.file_state import check_unchanged, file_state
from tessera.engine.graph.ir import Graph
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import read_model
from tessera.engine.head import HeatMaps, find_head
from tessera.engine.normalisation import FLOAT_PRECISION_KEY, Normalisation
from tessera.engine.peak import ReadRates, measure_peak, measure_reads
from tessera.engine.profile import LayerCost, layer_costs
from tessera.engine.rates import rates_here
from tessera.engine.session import LayerTiming, Session, SessionInfo, Slice, TensorSpec, check_batch, unavailable
from tessera.engine.sizes import HeightWidth, sizes_of

# Images that one pass holds per thread: the service's largest batch.
_CHUNK = 16

_THREAD, _GUEST, _START, _END = 1, 2, 3, 4  # columns of slices
_LEAST_HELP = 2000  # nanoseconds

_PRECISIONS: dict[int | None, Precision] = {_native.U8: "int8", _native.BF16: "bf16", _native.F32: "fp32"}


class CpuSession(Session):
    """Runs an ONNX file with the C core. One call runs all layers; the GIL is released meanwhile."""

    def __init__(
        self,
        path: Path,
        threads: int,
        precision: str,
        *,
        size: HeightWidth | None = None,
        sharing: _native.Program | None = None,
    ) -> None:
        """Loads and plans the graph and packs its weights.

        Args:
            path: the file.
            threads: threads of one run.
            precision: see `tessera.engine.load`.
            size: of the images, where the file leaves it open; None for the first that it names.
            sharing: a program of the same file, whose packed weights are used where they are the same.

        Raises:
            ModelError: the file is corrupt or outside what this engine runs.
        """
        self._path, self._state, self._asked = path, file_state(path), precision
        graph = lower(read_model(path, size))
        quantised = any(info.quant is not None for info in graph.values.values())
        if precision == "int8" and not quantised:
            raise ModelError(f"{path} is not quantised; quantise it first, or load it with precision='fp32'.")
        self._name = str(path)
        self._threads = threads
        if precision in ("auto", "int8"):
            precision = graph.metadata.get(FLOAT_PRECISION_KEY, "fp32")
        # Never slower than fp32 would be: on some CPUs bf16 products are.
        floats: Precision = rates_here().faster_float if precision == "bf16" else "fp32"
        self._normalisation = Normalisation.from_metadata(graph.metadata)
        self._input, self._output = _specs(graph)
        self._costs = layer_costs(graph)
        self._head = find_head(graph)
        tap = None if self._head is None else self._head.features
        self._plan = plan_graph(graph, floats, self._normalisation, tap)
        self._precision = _PRECISIONS[self._plan.main_type()] if self._plan.macs else floats
        self._program: _native.Program | None = _native.Program(threads, sharing)
        matrix_unit = self._program.isa == "amx"
        lay_out(self._plan, choose_blocks(self._plan, self._program), matrix_unit=matrix_unit)
        cut_segments(self._plan, _CHUNK, matrix_unit=matrix_unit)
        place_tensors(self._plan)
        fill_program(self._program, self._plan)
        _drop_weights(self._plan)
        self._closing = threading.Lock()
        self._packing = threading.Lock()  # shared by all sizes
        self._sizes = sizes_of(graph.metadata)
        del graph
        _native.trim_heap()  # the file's weights, freed by now, are a third of what the process holds

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """See `Session.run`."""
        program, batch, output = self._prepare(x)
        program.run(batch, batch.dtype == np.uint8, len(batch), output)
        return output

    def at(self, height: int, width: int) -> Session:
        """See `Session.at`. What is packed alike for both sizes is in memory once."""
        if not self._sizes:
            return super().at(height, width)
        with self._packing:
            program = self._program
            if program is None:
                raise unavailable(self._name)
            other = CpuSession(self._path, self._threads, self._asked, size=(height, width), sharing=program)
            check_unchanged(self._path, self._state)
        other._packing = self._packing
        return other

    def explain(self, x: npt.NDArray[Any], top: Sequence[int]) -> tuple[npt.NDArray[np.float32], list[HeatMaps | None]]:
        """See `Session.explain`."""
        head = self._head
        if head is None:
            return super().explain(x, top)
        program, batch, output = self._prepare(x)
        features = np.empty((len(batch), *head.shape), np.float32)
        program.run(batch, batch.dtype == np.uint8, len(batch), output, tap=features)
        return output, head.explain(features, output, top)

    def _prepare(self, x: npt.NDArray[Any]) -> tuple[_native.Program, npt.NDArray[Any], npt.NDArray[np.float32]]:
        """The program, the batch as it takes it, and room for the answer."""
        program = self._program
        if program is None:
            raise unavailable(self._name)
        check_batch(x, self._input, self._normalisation)
        shape = [size if size is not None else 1 for size in self._output.shape[1:]]
        return program, np.ascontiguousarray(x), np.empty((len(x), *shape), np.float32)

    def describe(self) -> SessionInfo:
        """See `Session.describe`."""
        if self._program is None:
            raise unavailable(self._name)
        return SessionInfo(
            backend="cpu",
            isa=self._program.isa,
            precision=self._precision,
            threads=self._threads,
            inputs=(self._input,),
            outputs=(self._output,),
            macs=self._plan.macs,
            arena_bytes=self._program.arena_bytes,
            normalises=self._normalisation is not None,
            explains=self._head is not None,
            sizes=self._sizes,
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, of all sizes that share them."""
        return 0 if self._program is None else self._program.weight_bytes

    @property
    def parallel_images(self) -> int:
        """See `Session.parallel_images`: one on every thread."""
        return self._threads

    def peak(self) -> float:
        """See `Session.peak`. Measured."""
        return measure_peak(self._precision, self._threads)

    def reads(self) -> ReadRates:
        """See `Session.reads`."""
        return measure_reads(self._threads)

    def profile(self, x: npt.NDArray[Any], runs: int = 10) -> list[LayerTiming]:
        """See `Session.profile`. With an image for every thread, times are those of the calling thread's share."""
        if runs < 1:
            raise InputError(f"profile needs at least one run, not {runs}.")
        kernels = self._kernels(self._prepare(x)[0])
        peak, reads = self.peak(), self.reads()
        samples = [_times_of_caller(self._timed_run(x), len(kernels)) for _ in range(runs)]
        rows = []
        for index, (step, kernel) in enumerate(zip(self._plan.steps, kernels, strict=True)):
            seconds = median(times[index] for times in samples) / 1e9
            cost = self._costs.get(step.name, LayerCost(step.op, 0, 0, 0))
            rows.append(LayerTiming.measured(step.name, step.op, kernel, seconds, x.shape[0], cost, peak, reads))
        return rows

    def trace(self, x: npt.NDArray[Any]) -> list[Slice]:
        """See `Session.trace`."""
        kernels = self._kernels(self._prepare(x)[0])
        self.run(x)
        slices = self._timed_run(x)
        began = int(slices[:, _START].min())
        return [
            Slice(
                name=self._plan.steps[step].name,
                op=self._plan.steps[step].op,
                kernel=kernels[step],
                thread=thread,
                start=(start - began) / 1e9,
                seconds=(end - start) / 1e9,
                helping=bool(guest),
            )
            for step, thread, guest, start, end in slices[slices[:, _START].argsort(kind="stable")].tolist()
            if not guest or end - start >= _LEAST_HELP  # most steps of another thread leave nothing to help with
        ]

    def _timed_run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The slices of a run, int64 [slices, 5]: step, thread, guest, start and end in nanoseconds."""
        program, batch, output = self._prepare(x)
        slices = np.zeros((program.slices(batch.shape[0]), 5), np.int64)
        program.run(batch, batch.dtype == np.uint8, batch.shape[0], output, slices)
        return slices[slices[:, _END] > 0]

    @staticmethod
    def _kernels(program: _native.Program) -> list[str]:
        return [kernel for _, kernel in program.steps()]

    def close(self) -> None:
        """See `Session.close`."""
        with self._closing:
            self._program = None


def _specs(graph: Graph) -> tuple[TensorSpec, TensorSpec]:
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(f"Graph '{graph.name}' must have one input and one output.")
    given, result = graph.values[graph.inputs[0]], graph.values[graph.outputs[0]]
    return TensorSpec(given.name, given.shape, "float32"), TensorSpec(result.name, result.shape, "float32")


def _times_of_caller(slices: npt.NDArray[np.int64], steps: int) -> npt.NDArray[np.float64]:
    """Nanoseconds by step that the calling thread spent on its own images, and on those that all share."""
    own = slices[(slices[:, _THREAD] == 0) & (slices[:, _GUEST] == 0)]
    spent = (own[:, _END] - own[:, _START]).astype(np.float64)
    return np.bincount(own[:, 0], spent, steps).astype(np.float64)


def _drop_weights(plan: ExecutionPlan) -> None:
    """The program holds packed copies; the originals would double the memory."""
    for step in plan.steps:
        for field in ("weights", "bias"):
            if hasattr(step, field):
                setattr(step, field, np.empty(0))
