"""ONNX's own backend interface on this engine, so that ONNX's tools and conformance tests can drive it.

    import tessera.engine.onnx_backend as backend
    rep = backend.prepare(onnx.load("model.onnx"))
    logits, = rep.run([x])
    rep.executor        # "cpu" for our engine, "onnxruntime" where the graph is outside of what it runs

ONNX passes weights as inputs where it likes. Here a graph has one input, its batch: what a run gives for all others is
bound as weights, so a run with other weights prepares the graph anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType

from tessera.engine.errors import InputError, ModelError
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tessera.engine.loading import load
from tessera.engine.session import Session
from tessera.wording import counted

Array = npt.NDArray[Any]
Executor = Literal["auto", "cpu", "reference", "onnxruntime"]

_EXECUTORS = ("auto", "cpu", "reference", "onnxruntime")


class TesseraRep(BackendRep):
    """A model that is ready to run.

    Attributes:
        executor: what ran last, or will run: "cpu", "reference" or "onnxruntime"; "auto" before the first run.
    """

    def __init__(self, model: ModelProto, executor: Executor) -> None:
        self.executor: Executor = executor
        self._wanted = executor
        self._model = model
        weights = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [value.name for value in model.graph.input if value.name not in weights]
        self._bound: dict[str, Array] = {}
        self._session: Session | None = None

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """Runs the model.

        Args:
            inputs: one array per graph input that is not a weight, in their order.
            **kwargs: none are known.

        Returns:
            The graph's outputs in their order.

        Raises:
            InputError: wrong number, types or shapes of inputs.
            ModelError: the wanted executor does not run this graph.
        """
        arrays = [np.asarray(array) for array in inputs]
        if kwargs or len(arrays) != len(self._inputs):
            raise InputError(
                f"The model takes {counted(len(self._inputs), 'input')} and no options: {', '.join(self._inputs)}."
            )
        feeds = dict(zip(self._inputs, arrays, strict=True))
        if self._wanted == "onnxruntime":
            return self._run_onnxruntime(feeds)
        if self._wanted == "reference":
            return self._run_reference(feeds)
        try:
            return self._run_cpu(feeds)
        except ModelError:
            if self._wanted == "cpu":
                raise
            return self._run_onnxruntime(feeds)

    def _run_cpu(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        bound = {name: feeds[name] for name in self._inputs[1:]}
        if self._session is None or not _same_arrays(bound, self._bound):
            if self._session is not None:
                self._session.close()
                self._session = None
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                path.write_bytes(_with_weights(self._model, bound).SerializeToString())
                self._session = load(path, backend="cpu")
            self._bound = {name: array.copy() for name, array in bound.items()}
        self.executor = "cpu"
        return (self._session.run(feeds[self._inputs[0]]),)

    def _run_reference(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        self.executor = "reference"
        try:
            return _reference_results(self._model, feeds)
        except (InputError, ModelError):  # what it took for batches may be meant as weights
            bound = {name: feeds[name] for name in self._inputs[1:]}
            return _reference_results(_with_weights(self._model, bound), feeds)

    def _run_onnxruntime(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        from tessera.engine.backends.onnxruntime.runtime import onnxruntime

        self.executor = "onnxruntime"
        try:
            session = onnxruntime.InferenceSession(self._model.SerializeToString(), providers=["CPUExecutionProvider"])
            return tuple(session.run(None, dict(feeds)))
        except Exception as error:  # its exceptions have no common base of their own
            raise ModelError(f"ONNX Runtime does not run the model: {error}") from error


class TesseraBackend(Backend):
    """ONNX's interface; see the module."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` takes the model on this device."""
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", executor: Executor = "auto", **kwargs: Any) -> TesseraRep:
        """Makes a model ready to run.

        Args:
            model: the model, without external data.
            device: "CPU".
            executor: "cpu" for our engine, "reference" for its oracle in numpy, "onnxruntime"; "auto" takes our engine
                and falls back to ONNX Runtime for graphs that it does not run.
            **kwargs: ignored, like in other backends.

        Raises:
            ModelError: the model contradicts ONNX, or the device or executor is unknown.
        """
        if not cls.supports_device(device) or executor not in _EXECUTORS:
            raise ModelError(
                f"There is no device '{device}' with executor '{executor}'; use CPU and one of {_EXECUTORS}."
            )
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"The model contradicts the ONNX standard: {error}") from error
        return TesseraRep(model, executor)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Array, ...]:
        """Prepares a model and runs it once; see `prepare` and `TesseraRep.run`."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Runs one node on arrays.

        Args:
            node: the node.
            inputs: one array per input that it has.
            device: "CPU".
            outputs_info: element type and shape of each output; without it, float32 and what ONNX infers.
            **kwargs: `opset_version` (17 without it), `executor`.

        Raises:
            ModelError: as for `prepare` and `TesseraRep.run`.
        """
        opset = kwargs.pop("opset_version", 17)
        names = [name for name in node.input if name]
        arrays = [np.asarray(array) for array in inputs]
        if len(arrays) != len(names):
            raise InputError(
                f"{node.op_type} node '{node.name}' has {counted(len(names), 'input')}; it was given {len(arrays)}."
            )
        given = [_declared(name, array.dtype, array.shape) for name, array in zip(names, arrays, strict=True)]
        if outputs_info is None:
            results = [_declared(name, np.dtype(np.float32), None) for name in node.output]
        else:
            pairs = zip(node.output, outputs_info, strict=True)
            results = [_declared(name, np.dtype(kind), shape) for name, (kind, shape) in pairs]
        graph = helper.make_graph([node], "node", given, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, opset)], ir_version=8)
        if outputs_info is None:
            model = onnx.shape_inference.infer_shapes(model)
        return cls.run_model(model, inputs, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for "CPU" and "CPU:0"."""
        try:
            return bool(Device(device).type == DeviceType.CPU)
        except (AttributeError, ValueError):
            return False


def _declared(name: str, dtype: np.dtype[Any], shape: Sequence[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


def _reference_results(model: ModelProto, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
    graph = convert_model(_with_weights(model, {}))  # reading may move data into the model: it gets a copy
    results = run_reference(graph, {name: feeds[name] for name in graph.inputs})
    return tuple(results[name] for name in graph.outputs)


def _with_weights(model: ModelProto, arrays: Mapping[str, Array]) -> ModelProto:
    """A copy of `model` in which `arrays` are weights."""
    bound = ModelProto()
    bound.CopyFrom(model)
    for name, array in arrays.items():
        bound.graph.initializer.append(numpy_helper.from_array(array, name))
    return bound


def _same_arrays(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    return first.keys() == second.keys() and all(
        array.dtype == second[name].dtype and np.array_equal(array, second[name]) for name, array in first.items()
    )


prepare = TesseraBackend.prepare
run_model = TesseraBackend.run_model
run_node = TesseraBackend.run_node
supports_device = TesseraBackend.supports_device
is_compatible = TesseraBackend.is_compatible
