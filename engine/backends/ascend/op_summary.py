"""Reading msprof's `op_summary_*.csv`: what each task on the device took, and what its counters say.

Columns (Ascend/msprof, "profile data file references"): "Op Name", "OP Type", "Task Type", "Task Duration(us)", "Input
Shapes"; with PipeUtilization also "mac_ratio" and "cube_utilization(%)", with Memory "l1_read_bw(GB/s)" and others.
310, 310P and 910 write counters without prefix, 310B and 910B with "aic_" or "aiv_". What a chip does not count is
"N/A": the unified buffer (UB) and all writing to L2 and memory on the 310B.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tessera.engine.errors import ModelError

_NAME, _TYPE, _DURATION, _SHAPES = "Op Name", "OP Type", "Task Duration(us)", "Input Shapes"
_MAC_RATIO, _CUBE_UTILIZATION = "mac_ratio", "cube_utilization(%)"
_PREFIXES = ("aic_", "aiv_", "")
# What is counted in GB/s, by the beginning of its two columns; l2 stands without unit in some versions.
_BANDWIDTHS = {"UB": "ub", "L1": "l1", "L2": "l2", "memory": "main_mem"}
_BANDWIDTH_COLUMNS = ("{}_read_bw(GB/s)", "{}_write_bw(GB/s)", "{}_read_bw", "{}_write_bw")
# GE copies the graph for every dynamic batch size and marks the names in each copy with its number, from 0, in the
# order of --dynamic_batch_size (hicann/ge, multi_batch_clone_pass.cc). Fused operators carry a mark per node.
_GEAR_MARK = re.compile(r"_ascend_mbatch_batch_(\d+)")


@dataclass(frozen=True)
class Task:
    """One task of one run.

    Attributes:
        name: operator as CANN names it after fusion, without the marks of its batch size.
        op: CANN's operator type.
        microseconds: from its start to its end on the device.
        batch: batch size that it ran for, by the marks in its name or its first input; None where neither says.
        mac_ratio: share of its cycles in which the cube unit worked; None where the chip does not count it.
        core_share: share of all cores' time, 0 to 1, in which they ran it; None where the chip does not count it.
        bandwidths: GB/s read and written, by buffer; without those that the chip does not count.
    """

    name: str
    op: str
    microseconds: float
    batch: int | None
    mac_ratio: float | None = None
    core_share: float | None = None
    bandwidths: Mapping[str, float] = field(default_factory=dict)


def read_op_summary(path: Path, gears: Sequence[int]) -> list[Task]:
    """Read a file, in its order.

    Args:
        path: the file.
        gears: batch sizes of the model, in the order that ATC was given.

    Raises:
        ModelError: it cannot be read, or is no op_summary; the message names what is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [{(key or "").strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"Cannot read {path}: {error}.") from error
    if not rows:
        raise ModelError(f"{path} holds no tasks: nothing ran on the device while it was profiled.")
    missing = [column for column in (_NAME, _TYPE, _DURATION) if column not in rows[0]]
    if missing:
        raise ModelError(f"{path} is no op_summary of msprof: it has no column {', '.join(missing)}.")
    return [_task(path, row, gears) for row in rows]


def operator_times(tasks: Iterable[Task], batch: int) -> list[Task]:
    """A task per operator, in the order of first appearance: medians; tasks of other batch sizes are left out."""
    grouped: dict[str, list[Task]] = {}
    for task in tasks:
        if task.batch in (None, batch):
            grouped.setdefault(task.name, []).append(task)
    return [_median_task(same) for same in grouped.values()]


def origin(operator: str, layers: Iterable[str]) -> str | None:
    """The layer of the ONNX graph that an operator was made from, by its name; None for CANN's own, such as TransData.

    GE puts the names of fused nodes together, the convolution's first, so the layer that stands first is meant; of
    several that stand there, the longest, as "conv1" also begins "conv10".
    """
    name = _comparable(operator)
    found = [(at, -len(layer), layer) for layer in layers if (at := _position(_comparable(layer), name)) is not None]
    return min(found)[2] if found else None


def _position(layer: str, name: str) -> int | None:
    """Where a layer's name stands in an operator's; None where it does not, or only as a part of a longer number."""
    for found in re.finditer(re.escape(layer), name):
        before, after = name[: found.start()][-1:], name[found.end() :][:1]
        if not before.isalnum() and not (layer[-1:].isdigit() and after.isdigit()):
            return found.start()
    return None


def _comparable(name: str) -> str:
    # CANN replaces some characters of node names; which ones differs between versions.
    return re.sub(r"[^0-9A-Za-z]", "_", name)


def _task(path: Path, row: Mapping[str, str | None], gears: Sequence[int]) -> Task:
    name = (row[_NAME] or "").strip()
    marks = _GEAR_MARK.findall(name)
    duration = _number(row[_DURATION])
    if not name or duration is None:
        raise ModelError(f"{path}: a task without name or duration: '{name}', '{row[_DURATION]}'.")
    if marks:
        # The last one ends the name; digits behind another one may belong to the next node.
        name = name.replace(f"_ascend_mbatch_batch_{marks[-1]}", "")
    number = int(marks[-1]) if marks else len(gears)
    percent = _number(row.get(_CUBE_UTILIZATION))
    return Task(
        name=name,
        op=(row[_TYPE] or "").strip(),
        microseconds=duration,
        batch=gears[number] if number < len(gears) else _leading_dimension(row.get(_SHAPES), gears),
        mac_ratio=_counter(row, _MAC_RATIO),
        core_share=None if percent is None else percent / 100,
        bandwidths=_bandwidths(row),
    )


def _counter(row: Mapping[str, str | None], name: str) -> float | None:
    """The largest of what the chip's kinds of core count: what runs on one kind is 0 or N/A on the other."""
    values = [value for prefix in _PREFIXES if (value := _number(row.get(prefix + name))) is not None]
    return max(values, default=None)


def _bandwidths(row: Mapping[str, str | None]) -> dict[str, float]:
    found = {}
    for buffer, column in _BANDWIDTHS.items():
        counted = [_counter(row, form.format(column)) for form in _BANDWIDTH_COLUMNS]
        if any(value is not None for value in counted):
            found[buffer] = sum(value for value in counted if value is not None)
    return found


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").strip())
    except ValueError:
        return None  # N/A


def _leading_dimension(shapes: str | None, gears: Sequence[int]) -> int | None:
    """16 of the shapes '"16,3,224,224;64,3,7,7"'; None where that is no batch size of the model."""
    found = re.match(r'[\s"]*(\d+),', shapes or "")
    return int(found[1]) if found and int(found[1]) in gears else None


def _median_task(tasks: list[Task]) -> Task:
    buffers = dict.fromkeys(buffer for task in tasks for buffer in task.bandwidths)
    return Task(
        name=tasks[0].name,
        op=tasks[0].op,
        microseconds=median(task.microseconds for task in tasks),
        batch=tasks[0].batch,
        mac_ratio=_median(task.mac_ratio for task in tasks),
        core_share=_median(task.core_share for task in tasks),
        bandwidths={b: median(task.bandwidths[b] for task in tasks if b in task.bandwidths) for b in buffers},
    )


def _median(values: Iterable[float | None]) -> float | None:
    counted = [value for value in values if value is not None]
    return median(counted) if counted else None
