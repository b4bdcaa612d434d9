"""Reading msprof's `op_summary_*.csv`: what each task on the device took, and how busy the cube unit was.

Columns (Ascend/msprof, "profile data file references"): "Op Name", "OP Type", "Task Type", "Task Duration(us)", "Input
Shapes"; with PipeUtilization also "mac_ratio" on 310, 310P and 910, "aic_mac_ratio" on 310B and 910B. What a chip does
not count is "N/A".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tessera.engine.errors import ModelError

_NAME, _TYPE, _DURATION, _SHAPES = "Op Name", "OP Type", "Task Duration(us)", "Input Shapes"
_MAC_RATIOS = ("aic_mac_ratio", "mac_ratio")
# GE copies the graph for every dynamic batch size and marks the copies' names.
_GEAR_SUFFIX = re.compile(r"_ascend_mbatch_batch_(\d+)$")


@dataclass(frozen=True)
class Task:
    """One task of one run.

    Attributes:
        name: operator as CANN names it after fusion, without the mark of its batch size.
        op: CANN's operator type.
        microseconds: from its start to its end on the device.
        mac_ratio: share of its cycles in which the cube unit worked; None where the chip does not count it.
        batch: batch size that it ran for, by the mark of its name or its first input; None where neither says.
    """

    name: str
    op: str
    microseconds: float
    mac_ratio: float | None
    batch: int | None


@dataclass(frozen=True)
class OperatorTime:
    """An operator over all its runs: medians."""

    name: str
    op: str
    microseconds: float
    mac_ratio: float | None


def read_op_summary(path: Path) -> list[Task]:
    """Read a file, in its order.

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
    return [_task(path, row) for row in rows]


def operator_times(tasks: Iterable[Task], batch: int) -> list[OperatorTime]:
    """Medians by operator, in the order of first appearance; tasks of other batch sizes are left out."""
    grouped: dict[str, list[Task]] = {}
    for task in tasks:
        if task.batch in (None, batch):
            grouped.setdefault(task.name, []).append(task)
    return [
        OperatorTime(
            name=name,
            op=same[0].op,
            microseconds=median(task.microseconds for task in same),
            mac_ratio=_median_ratio(same),
        )
        for name, same in grouped.items()
    ]


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


def _task(path: Path, row: Mapping[str, str | None]) -> Task:
    name = (row[_NAME] or "").strip()
    marked = _GEAR_SUFFIX.search(name)
    duration = _number(row[_DURATION])
    if not name or duration is None:
        raise ModelError(f"{path}: a task without name or duration: '{name}', '{row[_DURATION]}'.")
    ratio = next((value for column in _MAC_RATIOS if (value := _number(row.get(column))) is not None), None)
    return Task(
        name=_GEAR_SUFFIX.sub("", name),
        op=(row[_TYPE] or "").strip(),
        microseconds=duration,
        mac_ratio=ratio,
        batch=int(marked[1]) if marked else _leading_dimension(row.get(_SHAPES)),
    )


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").strip())
    except ValueError:
        return None  # N/A


def _leading_dimension(shapes: str | None) -> int | None:
    """16 of the shapes '"16,3,224,224;64,3,7,7"'."""
    found = re.match(r'[\s"]*(\d+),', shapes or "")
    return int(found[1]) if found else None


def _median_ratio(tasks: list[Task]) -> float | None:
    ratios = [task.mac_ratio for task in tasks if task.mac_ratio is not None]
    return median(ratios) if ratios else None
