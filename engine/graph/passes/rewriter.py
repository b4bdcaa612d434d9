"""Editing a graph while knowing who writes and who reads each value."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

from tessera.engine.graph.ir import Graph, Node, ValueInfo

_RESHAPES = ("Flatten", "Reshape")


class Rewriter:
    """Edits a graph in place; `commit` writes the nodes back, drops what nothing uses any more, and tells of changes.

    Args:
        graph: the graph to edit.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # (place, rank): nodes inserted before another one share its place and rank below it.
        self._order = {node: (place, sys.maxsize) for place, node in enumerate(graph.nodes)}
        self._inserted = 0
        self._changed = False
        self._producer = {node.output: node for node in graph.nodes}
        self._readers: dict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            for value in node.present_inputs():
                self._readers[value].append(node)

    def producer(self, value: str) -> Node | None:
        """The node that writes `value`, None for graph inputs and constants."""
        return self._producer.get(value)

    def readers(self, value: str) -> list[Node]:
        """The nodes that read `value`; one that reads it twice appears twice."""
        return list(self._readers[value])

    def only_reader(self, value: str) -> Node | None:
        """The node that is alone in using `value`: it reads it once, nothing else does, and no run returns it."""
        readers = self._readers[value]
        return readers[0] if len(readers) == 1 and value not in self.graph.outputs else None

    def fusable_writer(self, node: Node, index: int = 0) -> Node | None:
        """The node whose result `node` is alone in using as input `index`, looking through Flatten and Reshape.

        None when that result, or a reshaped form of it, is used elsewhere or stored quantised: then it must exist.
        """
        reader, value = node, node.inputs[index]
        while True:
            if self.only_reader(value) is not reader or self.graph.values[value].quant is not None:
                return None
            writer = self.producer(value)
            if writer is None or writer.op not in _RESHAPES:
                return writer
            reader, value = writer, writer.inputs[0]

    def is_removed(self, node: Node) -> bool:
        """True when `node` was removed since this rewriter was made."""
        return node not in self._order

    def is_later(self, first: Node, second: Node) -> bool:
        """True when `first` runs after `second`."""
        return self._order[first] > self._order[second]

    def remove(self, node: Node) -> None:
        """Takes `node` out. Its output must get another writer or lose its readers before `commit`."""
        self._changed = True
        del self._order[node]
        del self._producer[node.output]
        for value in node.present_inputs():
            self._readers[value].remove(node)

    def absorb_into_writer(self, node: Node, index: int = 0) -> None:
        """Takes `node` out and lets the writer of its input `index` write its output instead."""
        writer = self._producer[node.inputs[index]]
        self.remove(node)
        self.set_output(writer, node.output)

    def insert_before(self, anchor: Node, node: Node) -> None:
        """Puts a new node directly before `anchor`."""
        self._inserted += 1
        self._add(node, (self._order[anchor][0], self._inserted))

    def replace(self, old: Node, new: Node) -> None:
        """Puts a new node in the place of `old`, which is removed."""
        place = self._order[old]
        self.remove(old)
        self._add(new, place)

    def move_to(self, node: Node, successor: Node) -> None:
        """Moves `node` to the place of `successor`, which is removed."""
        place = self._order[successor]
        self.remove(successor)
        self._order[node] = place

    def turn_into(self, node: Node, op: str, attrs: dict[str, Any]) -> None:
        """Makes `node` another operation on the same values."""
        self._changed = True
        node.op, node.attrs = op, attrs

    def set_input(self, node: Node, index: int, value: str) -> None:
        """Makes `node` read `value` ("" for nothing) as its input number `index`."""
        self._changed = True
        if node.inputs[index]:
            self._readers[node.inputs[index]].remove(node)
        node.inputs[index] = value
        if value:
            self._readers[value].append(node)

    def set_output(self, node: Node, value: str) -> None:
        """Makes `node` write `value`, whose former writer was removed. What it wrote before must have no readers."""
        self._changed = True
        del self._producer[node.output]
        node.outputs[0] = value
        self._producer[value] = node

    def can_merge(self, kept: str, gone: str) -> bool:
        """False when both names must survive: a run returns `gone`, and `kept` is returned too or has no writer."""
        return gone not in self.graph.outputs or (kept in self._producer and kept not in self.graph.outputs)

    def merge(self, kept: str, gone: str) -> str:
        """Makes every reader of `gone`, whose writer was removed, use the value `kept`. `can_merge` must hold.

        Returns:
            The name under which the value survives: `gone` when a run returns it, otherwise `kept`.
        """
        if gone not in self.graph.outputs:
            self._redirect(gone, kept)
            return kept
        info = self.graph.values[kept]
        self._redirect(kept, gone)
        self.set_output(self._producer[kept], gone)
        self.graph.values[gone] = ValueInfo(gone, info.shape, info.dtype, info.quant)
        return gone

    def _add(self, node: Node, place: tuple[int, int]) -> None:
        self._changed = True
        self._order[node] = place
        self._producer[node.output] = node
        for value in node.present_inputs():
            self._readers[value].append(node)

    def _redirect(self, old: str, new: str) -> None:
        for node in self._readers.pop(old, []):
            node.inputs = [new if value == old else value for value in node.inputs]
            self._readers[new].append(node)

    def commit(self) -> bool:
        """Writes the edited nodes back, without those whose results nothing uses, and forgets unused values.

        Returns:
            Whether any node was edited, added or dropped.
        """
        needed = set(self.graph.outputs)
        alive: list[Node] = []
        for node in sorted(self._order, key=self._order.__getitem__, reverse=True):
            if node.output in needed:
                needed.update(node.present_inputs())
                alive.append(node)
        changed = self._changed or len(alive) < len(self.graph.nodes)
        self.graph.nodes = alive[::-1]
        needed.update(self.graph.inputs)
        self.graph.constants = {name: array for name, array in self.graph.constants.items() if name in needed}
        self.graph.values = {name: info for name, info in self.graph.values.items() if name in needed}
        return changed
