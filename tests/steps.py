"""Counts what Python executes, so that a test can say how cost grows without asking a clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# Methods that may look at everything that they belong to. A call of one counts for as many steps as that is long.
_LINEAR = {"count", "index", "find", "rfind", "replace", "split", "rsplit", "splitlines", "strip", "lstrip", "rstrip"}
_LINEAR |= {"lower", "upper", "encode", "decode", "translate", "join", "copy", "sort", "reverse", "remove", "insert"}
_LINEAR |= {"tobytes", "isdigit", "isascii", "partition", "rpartition"}


def steps(call: Callable[[], object]) -> int:
    """Call, and return how many bytecode instructions and steps of built-in methods that took.

    What C code does inside one call of a function is not seen, nor is copying by slices.
    """
    counted = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal counted
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        counted += event == "opcode"
        return trace

    def profile(_: FrameType, event: str, function: Any) -> None:
        nonlocal counted
        if event == "c_call" and function.__name__ in _LINEAR:
            owner = getattr(function, "__self__", None)
            counted += len(owner) if isinstance(owner, (str, bytes, bytearray, memoryview, list)) else 0

    before = sys.gettrace(), sys.getprofile()
    sys.setprofile(profile)
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return counted
