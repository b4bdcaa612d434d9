"""Per-layer times from the device: aclprof records, `msprof` turns the record into tables."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tessera.engine.backends.ascend.chips import find_chip
from tessera.engine.backends.ascend.library import Library
from tessera.engine.backends.ascend.op_summary import Task, operator_times, origin, read_op_summary
from tessera.engine.errors import BackendUnavailableError, EngineError
from tessera.engine.profile import LayerCost
from tessera.engine.session import LayerTiming

# aclprofAicoreMetrics and the data types of aclprofCreateConfig, acl/acl_prof.h.
_PIPE_UTILIZATION, _MEMORY_BANDWIDTH = 1, 2
_TASK_TIME, _AICORE_METRICS = 0x2, 0x4
_LONGEST_EXPORT_SECONDS = 600


def check_tools(library: Library) -> None:
    """Check that profiling can work here, before a model is loaded for it.

    Raises:
        BackendUnavailableError: CANN's profiling library or `msprof` is missing.
    """
    if not library.has("aclprofInit"):
        raise BackendUnavailableError(
            "Profiling needs libmsprofiler.so of the CANN toolkit; source its set_env.sh. The runtime package alone "
            "does not have it."
        )
    if shutil.which("msprof") is None:
        raise BackendUnavailableError("Profiling needs msprof of the CANN toolkit on the PATH; source its set_env.sh.")


@contextmanager
def recording(library: Library, folder: Path, devices: Sequence[int], metrics: int) -> Iterator[None]:
    """Record every task on the devices, with one set of counters, into `folder` while the block runs.

    Models must be loaded inside the block, or their operators have no names.

    Raises:
        AclError: profiling cannot be started, for example because something else in this process profiles already.
    """
    path = str(folder).encode()
    ids = (ctypes.c_uint32 * len(devices))(*devices)
    with ExitStack() as started:
        library.call("aclprofInit", path, len(path))
        started.callback(library.release, "aclprofFinalize")
        types = _TASK_TIME | _AICORE_METRICS
        config = library.pointer("aclprofCreateConfig", ids, len(devices), metrics, None, types)
        started.callback(library.release, "aclprofDestroyConfig", config)
        library.call("aclprofStart", config)
        started.callback(library.release, "aclprofStop", config)
        yield


def export(folder: Path) -> list[Path]:
    """Let msprof turn the record in `folder` into tables; returns its op_summary files.

    Raises:
        EngineError: there is no record, or msprof failed; the message ends with what it said.
    """
    records = sorted(folder.glob("PROF_*"))
    if not records:
        raise EngineError(f"CANN recorded nothing: there is no PROF_* folder in {folder}.")
    for record in records:
        done = subprocess.run(
            ["msprof", "--export=on", f"--output={record}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_LONGEST_EXPORT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            said = "\n".join(done.stdout.strip().splitlines()[-10:])
            raise EngineError(f"msprof failed with exit code {done.returncode}. It said:\n{said}")
    # In mindstudio_profiler_output; in device_0/summary before CANN 7.
    return sorted(folder.rglob("op_summary*.csv"))


def profile_layers(
    library: Library,
    folder: Path,
    run: Callable[[], None],
    *,
    device: int,
    batch: int,
    gears: Sequence[int],
    soc: str,
    precision: str,
    costs: dict[str, LayerCost],
) -> list[LayerTiming]:
    """Record what `run` does and tell it by layer.

    It runs twice, as a record holds one set of counters: those of the pipes, then those of the memories.

    Args:
        library: AscendCL.
        folder: an empty folder for the records.
        run: loads a model, runs batches of `batch` images on `device` and closes it.
        device: the device's number.
        batch: images per run, one of the model's gears.
        gears: those gears, in the order that ATC was given.
        soc: the chip, for its peak.
        precision: of the model's convolutions.
        costs: what the layers of the ONNX graph cost, by name; may be empty.

    Returns:
        A row per operator on the device, in order. `peak_share` is 0 where the chip's peak is not known.

    Raises:
        EngineError: recording or exporting failed.
        ModelError: msprof's table cannot be read.
    """

    def measured(metrics: int, name: str) -> list[Task]:
        record = folder / name
        record.mkdir()
        with recording(library, record, [device], metrics):
            run()
        tasks = [task for path in export(record) for task in read_op_summary(path, gears)]
        return operator_times(tasks, batch)

    times = measured(_PIPE_UTILIZATION, "pipes")
    if not times:
        raise EngineError(f"msprof's table has no task of batch {batch}.")
    bandwidths = {task.name: task.bandwidths for task in measured(_MEMORY_BANDWIDTH, "memories")}
    chip = find_chip(soc)
    peak = chip.peak(precision) if chip is not None else float("inf")
    return [_row(time, bandwidths.get(time.name, {}), batch, costs, peak) for time in times]


def _row(
    time: Task, bandwidths: Mapping[str, float], batch: int, costs: dict[str, LayerCost], peak: float
) -> LayerTiming:
    layer = origin(time.name, (name for name, cost in costs.items() if cost.macs))
    cost = costs[layer] if layer is not None else LayerCost(time.op, 0, 0, 0)
    seconds = time.microseconds / 1e6
    row = LayerTiming.measured(layer or time.name, time.op, time.op, seconds, batch, cost, peak)
    return replace(row, mac_ratio=time.mac_ratio, core_share=time.core_share, bandwidths=bandwidths)
