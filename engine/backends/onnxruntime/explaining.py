"""A second session of ONNX Runtime that also gives out what is pooled at the network's end."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, ValueInfoProto

from tessera.engine.backends.onnxruntime.runtime import onnxruntime
from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph
from tessera.engine.graph.reader import read_model
from tessera.engine.head import Head, find_head


def explains(path: Path, graph: Graph) -> bool:
    """Whether scores can be explained: the graph has such a head, and the file itself names what is pooled.

    The reader makes values of its own where it spells an operator out; ONNX Runtime knows none of them.
    """
    head = find_head(graph)
    if head is None:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(head.features.encode()) >= 0


def head_of(path: Path) -> Head:
    """The head of a file that has one.

    Raises:
        ModelError: it has none by now.
    """
    head = find_head(read_model(path))
    if head is None:
        raise ModelError(f"{path} does not end in global average pooling and one linear layer.")
    return head


def with_output(model: str | bytes, value: str) -> bytes:
    """A model, or the file of one, with one more output.

    Messages of protobuf that follow each other are one message, so the model needs not be parsed for that.
    """
    whole = model if isinstance(model, bytes) else Path(model).read_bytes()
    return whole + ModelProto(graph=GraphProto(output=[ValueInfoProto(name=value)])).SerializeToString()


class ExplainingSession:
    """Scores and what they are made of.

    Args:
        session: of a model that has the head's features as its second output.
        head: of the same model.
    """

    def __init__(self, session: onnxruntime.InferenceSession, head: Head) -> None:
        self.head = head
        self._session = session

    def run(self, batch: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Scores [N, classes] and features [N, C, H, W] of float32 [N, C, H, W]."""
        scores, features = self._session.run(None, {self._session.get_inputs()[0].name: batch})
        return np.asarray(scores, np.float32), np.asarray(features, np.float32)
