"""Sessions of ONNX Runtime for calibration: one thread, and no more memory than a run needs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tessera.engine.backends.onnxruntime.runtime import onnxruntime
from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph
from tessera.engine.graph.writer import to_onnx


def open_session(graph: Graph, outputs: Iterable[str] | None = None) -> Any:
    """A session that runs on the caller's thread; several callers may run it at once.

    Args:
        graph: what it runs.
        outputs: values that it returns; None for the graph's outputs.

    Raises:
        Exception: of ONNX Runtime, whose exceptions share no base class.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # There may be one a node: none may keep the memory of its largest run, nor a second copy of its weights.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    # A session keeps the bytes that it is made from, but not a file.
    with file_in_memory(to_onnx(graph, outputs).SerializeToString()) as path:
        return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])


@contextmanager
def file_in_memory(payload: bytes) -> Iterator[Path]:
    """A file that needs no file system, because one for temporary files may be full, tiny or read-only.

    Raises:
        ModelError: there is not enough memory.
    """
    descriptor = os.memfd_create("tessera-candidate")
    path = Path(f"/proc/self/fd/{descriptor}")
    try:
        try:
            path.write_bytes(payload)
        except OSError as error:
            raise ModelError(f"Cannot hold a network in memory: {error.strerror or error}.") from error
        yield path
    finally:
        os.close(descriptor)
