"""A run as a trace in Chrome's format, which Perfetto (https://ui.perfetto.dev) opens: one slice per layer and thread.

Format: "Trace Event Format", Google, 2016; JSON object form, complete events ("X") and metadata ("M").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tessera import engine
from tessera.engine.quantize.files import write_whole


def write_trace(path: Path, slices: Mapping[str, Sequence[engine.Slice]], about: Mapping[str, str | int]) -> None:
    """Write the traces of all variants, whole or not at all; each variant is a process that begins at 0.

    Args:
        path: Where to.
        slices: By variant.
        about: What ran; shown by viewers as the trace's information.

    Raises:
        OSError: It cannot be written.
    """
    events: list[dict[str, Any]] = []
    for process, (variant, found) in enumerate(slices.items(), start=1):
        events.append(_name(process, "process_name", variant))
        events += [
            _name(process, "thread_name", f"thread {thread}", thread) for thread in sorted({s.thread for s in found})
        ]
        events += [_complete(process, s) for s in found]
    document = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": dict(about)}
    write_whole(path, (json.dumps(document) + "\n").encode())


def _name(process: int, what: str, name: str, thread: int = 0) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}


def _complete(process: int, piece: engine.Slice) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": process,
        "tid": piece.thread,
        "name": piece.name,
        "cat": "helping" if piece.helping else "layer",
        "ts": round(piece.start * 1e6, 3),  # microseconds
        "dur": round(piece.seconds * 1e6, 3),
        "args": {"op": piece.op, "kernel": piece.kernel},
    }
