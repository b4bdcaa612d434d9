"""Running single nodes of a float network on stored values, through ONNX Runtime, on several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tessera.engine.budget import cpu_budget
from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph, Node
from tessera.engine.quantize.network.sessions import open_session

Array = NDArray[np.float32]

T = TypeVar("T")
R = TypeVar("R")


class NodeRunner:
    """Runs one node of a graph on one thread: the caller's. Several callers may run it at once.

    Args:
        graph: the graph that the node and its constants belong to.
        node: the node; it has one output.
        constants: constants to use instead of the graph's, by name: quantised weights, for example.

    Raises:
        ModelError: ONNX Runtime cannot load the node.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        constants: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        known = {**graph.constants, **(constants or {})}
        self.inputs = [name for name in dict.fromkeys(node.present_inputs()) if name not in known]
        part = replace(graph, nodes=[node], inputs=self.inputs, outputs=[node.output], constants=known, metadata={})
        try:
            self._session = open_session(part)
        except ModelError:  # says it itself
            raise
        except Exception as error:  # the runtime's exceptions share no base class
            raise ModelError(f"ONNX Runtime cannot run the node '{node.name}': {error}") from error

    def run(self, values: Mapping[str, Array]) -> Array:
        """Run the node.

        Args:
            values: the activations that it reads, float32 with the images first.

        Returns:
            Its output, float32.

        Raises:
            ModelError: the node fails on values of these shapes.
        """
        return self.run_on([values[name] for name in self.inputs])

    def run_on(self, activations: Sequence[Array]) -> Array:
        """As `run`, with the activations in the order of `inputs`."""
        try:
            result: Array = self._session.run(None, dict(zip(self.inputs, activations, strict=True)))[0]
        except Exception as error:  # as above
            raise ModelError(f"A node cannot run on its calibration images: {error}") from error
        return result


class NodeRunners:
    """The runners of a float graph's nodes, each made when it is first asked for, and the threads that use them.

    Args:
        graph: the graph.
        threads: how many; None for as many as the process may use.
    """

    def __init__(self, graph: Graph, threads: int | None) -> None:
        self.graph = graph
        self._pool = ThreadPoolExecutor(threads or cpu_budget(), thread_name_prefix="tessera-quantise")
        self._made: dict[str, NodeRunner] = {}

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The function's results for all items, in their order, computed on all threads; not to be nested."""
        return list(self._pool.map(function, items))

    def start(self, function: Callable[[T], R], item: T) -> Future[R]:
        """The function's result for one item, computed on another thread."""
        return self._pool.submit(function, item)

    def of(self, node: Node) -> NodeRunner:
        """The runner of a node with the graph's own constants."""
        key = node.output
        if key not in self._made:
            self._made[key] = NodeRunner(self.graph, node)
        return self._made[key]

    def quantised(self, node: Node, constants: Mapping[str, NDArray[Any]]) -> NodeRunner:
        """A runner of a node with other constants."""
        return NodeRunner(self.graph, node, constants)
