"""Where `.om` files come from: commands, versions and hashes, as `ascend.json` beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tessera.engine.quantize.files import write_whole
from tessera.models.ascend.commands import Command
from tessera.models.formats.weights import file_sha256

RECORD = "ascend.json"


@dataclass(frozen=True)
class Run:
    """A command that was run.

    Attributes:
        command: what.
        seconds: how long it took.
        said: the end of what it wrote.
    """

    command: Command
    seconds: float
    said: str


def write_record(
    folder: Path, soc: str, source: Path, inputs: Iterable[str], runs: Iterable[Run], reports: dict[str, str]
) -> None:
    """Write the record of a finished conversion.

    Args:
        folder: the conversion's folder.
        soc: the chip.
        source: the model that was converted, as it was given.
        inputs: names of the files in `folder` that the commands read.
        runs: the commands, in order.
        reports: what `atc --mode=6` says of each .om file, by file name: chip, versions, memory.

    Raises:
        ModelError: a file cannot be read, or the record cannot be written.
    """
    runs = list(runs)
    record: dict[str, Any] = {
        "soc": soc,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "tessera": _tessera_version(),
            "cann": {name: os.environ.get(name, "") for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH")},
        },
        "source": _described(source),
        "inputs": {name: _described(folder / name) for name in inputs},
        "commands": [
            {
                "arguments": list(run.command.arguments),
                "variables": dict(run.command.variables),
                "seconds": round(run.seconds, 3),
                "said": run.said,
            }
            for run in runs
        ],
        "outputs": {run.command.produces: _described(folder / run.command.produces) for run in runs},
        "reports": reports,
    }
    write_whole(folder / RECORD, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def _described(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _tessera_version() -> str:
    try:
        return version("tessera-inference")
    except PackageNotFoundError:
        return "unpackaged"
