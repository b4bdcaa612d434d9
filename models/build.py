"""First start: the graphs that are served, built from what a model folder holds, once, into the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tessera import engine, models
from tessera.engine.errors import ModelError
from tessera.engine.graph.protos import computes_in_integers
from tessera.engine.graph.reader import read_model
from tessera.engine.loading import obstacle
from tessera.engine.quantize.calibration import Calibration, Verdict
from tessera.engine.quantize.files import PARTIAL_SUFFIX, write_whole
from tessera.engine.quantize.writer import quantised_model
from tessera.engine.rates import rates_here
from tessera.models.cache import build_folder, exclusive, make_folder
from tessera.models.calibrations import CalibrationFiles, Choice
from tessera.models.formats.weights import file_sha256
from tessera.models.package import Package
from tessera.models.source import float_model, leave_sizes_open

Progress = Callable[[str, float], None]

BASELINE = "baseline.onnx"
OPTIMISED = "optimised.onnx"
_RECORD = "build.json"

# What the bytes of a built graph depend on, besides weights and calibration.
_BUILDER_SOURCES = (
    "models/logits.py",
    "models/opaque_form.py",
    "models/resnet.py",
    "models/serving_form.py",
    "models/source.py",
    "models/formats/weights.py",
    "engine/graph",
    "engine/quantize",
    "engine/backends/cpu",
)


@dataclass(frozen=True)
class Build:
    """The graphs of one model, ready to load.

    Attributes:
        baseline: the graph as its publisher made it; the stock float32 graph of a state dict.
        optimised: the QDQ graph; None when the model has no calibration.
        quantised: whether the baseline is quantised itself.
        remark: a sentence for people when the calibration is not what they may expect; else empty.
        verdict: what the gate said of the optimised graph; None where it was not kept.
        obstacle: what keeps our engine from running the optimised graph, or the baseline where there is none; else
            empty. A sentence without its last dot.
        quantisable: whether our quantiser reads the baseline.
    """

    baseline: Path
    optimised: Path | None
    quantised: bool
    remark: str = ""
    verdict: Verdict | None = None
    obstacle: str = ""
    quantisable: bool = True


def build_model(package: Package, cache: Path, progress: Progress | None = None) -> Build:
    """Build the graphs of a package, or find them in the cache.

    The same weights, calibration and builder always give the same bytes. Several processes may build at once: one
    does the work, the others wait for it. A build that is killed leaves nothing that a later one would take for whole.

    Args:
        package: what to build.
        cache: the cache folder; created when missing.
        progress: called as `progress(stage, fraction)` with the fraction of the whole build, 0 to 1.

    Raises:
        ModelError: the folder's files are damaged or do not fit together, or the cache cannot be written.
    """
    report = progress or (lambda stage, fraction: None)
    report("checking weights", 0.0)
    plan = _plan(package, cache)
    if not plan.is_built():
        make_folder(plan.folder)
        with exclusive(plan.folder, lambda: report("waiting for another process", 0.0)):
            if not plan.is_built():
                _build(package, plan, report)
    report("built", 1.0)
    return plan.build()


def is_built(package: Package, cache: Path) -> bool:
    """Whether `build_model` would find everything in the cache.

    Raises:
        ModelError: the folder's files cannot be read or do not belong together.
    """
    return _plan(package, cache).is_built()


@dataclass(frozen=True)
class _Plan:
    folder: Path
    choice: Choice

    @property
    def calibration(self) -> Calibration | None:
        return self.choice.calibration

    def names(self) -> list[str]:
        return [BASELINE] if self.calibration is None else [BASELINE, OPTIMISED]

    def build(self) -> Build:
        calibration, record = self.calibration, self._record()
        return Build(
            self.folder / BASELINE,
            None if calibration is None else self.folder / OPTIMISED,
            bool(record[BASELINE]["quantised"]),
            self.choice.remark,
            None if calibration is None else calibration.verdict,
            record[self.names()[-1]]["obstacle"],
            bool(record[self.names()[-1]]["quantisable"]),
        )

    def is_built(self) -> bool:
        """The record is written last, so it vouches for the files; their sizes show later damage by a full disk."""
        try:
            record = self._record()
            is_whole = all(record[name]["bytes"] == (self.folder / name).stat().st_size for name in self.names())
            return is_whole and "quantised" in record[BASELINE] and "obstacle" in record[self.names()[-1]]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        return record


def _plan(package: Package, cache: Path) -> _Plan:
    source_sha256 = file_sha256(package.source)
    choice = CalibrationFiles.of(package, cache, source_sha256).choose(source_sha256)
    if choice.calibration is not None and choice.calibration.gains:
        # Part of the ingredients below: CPUs of other classes that share the folder find only what is theirs.
        choice = replace(choice, calibration=choice.calibration.for_cpu(rates_here()))
    ingredients = {
        "source": source_sha256,
        "calibration": choice.calibration.to_json() if choice.calibration else None,
        "builder": _builder_version(),
        "architecture": package.architecture,
        "name": package.name,
        "labels": package.labels,
        "preprocessing": asdict(package.preprocessing),
        "sizes": [preprocessing.size for preprocessing in package.others],
    }
    fingerprint = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
    return _Plan(build_folder(cache, package.name, fingerprint), choice)


def _builder_version() -> str:
    """Hash of the code that builds: a changed builder never meets graphs of the one before it."""
    # By file: in an editable install a package's path names the folder of compiled modules first.
    roots = {"models": Path(models.__file__).parent, "engine": Path(engine.__file__).parent}
    digest = hashlib.sha256()
    for entry in _BUILDER_SOURCES:
        package, _, rest = entry.partition("/")
        path = roots[package] / rest
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _build(package: Package, plan: _Plan, report: Progress) -> None:
    for leftover in plan.folder.glob(f".*{PARTIAL_SUFFIX}"):  # of a build that was killed; its lock is gone with it
        leftover.unlink(missing_ok=True)
    report("reading weights", 0.1)
    model = float_model(package)
    payloads = {}
    report(f"writing {BASELINE}", 0.3)
    payloads[BASELINE] = model.SerializeToString(deterministic=True)
    write_whole(plan.folder / BASELINE, payloads[BASELINE])
    if plan.calibration is not None:
        report("quantising", 0.6)
        quantised = quantised_model(model, plan.calibration)
        leave_sizes_open(quantised, package)
        payloads[OPTIMISED] = quantised.SerializeToString(deterministic=True)
        del quantised
        report(f"writing {OPTIMISED}", 0.9)
        write_whole(plan.folder / OPTIMISED, payloads[OPTIMISED])
    record: dict[str, Any] = {
        name: {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        for name, payload in payloads.items()
    }
    record[BASELINE]["quantised"] = computes_in_integers(model)
    del model, payloads  # as large as the network; a session needs that room
    report("trying our engine", 0.95)
    served = plan.names()[-1]
    # Where the file lies is no part of what is in the way.
    found = obstacle(plan.folder / served).replace(f"{plan.folder / served}: ", "")
    record[served].update(obstacle=found, quantisable=not found or _is_readable(plan.folder / served))
    write_whole(plan.folder / _RECORD, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def _is_readable(path: Path) -> bool:
    try:
        read_model(path)
    except ModelError:
        return False
    return True
