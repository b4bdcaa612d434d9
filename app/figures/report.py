"""The report: everything that was measured of a model on this machine, as a document and as one HTML file."""

from __future__ import annotations

import html
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera import engine
from tessera.app.figures.accuracy import count_accuracy
from tessera.app.figures.documents import BenchDocument, EnergyBody, ReportDocument, describe
from tessera.app.figures.profiling import profile_variants
from tessera.app.figures.rivals import open_rivals, versions
from tessera.app.figures.speed import BATCHES, describe_row, measure
from tessera.app.served.loading import open_session
from tessera.app.settings import Settings
from tessera.app.version import service_version
from tessera.engine.energy import EnergyMeter
from tessera.engine.normalisation import Normalisation
from tessera.models.package import Package
from tessera.models.registry import Model

_BUILT = Path(__file__).parents[1] / "web" / "report"
_LEAST_AGREEMENT = 0.9  # of another engine with the baseline
_ENERGY_SECONDS = 3.0  # of each variant; the counters move every millisecond


def make_report(
    model: Model,
    package: Package,
    settings: Settings,
    pool: npt.NDArray[np.uint8],
    *,
    rounds: int,
    photos: Path | None,
    command: str,
    progress: Callable[[str, float], None],
) -> ReportDocument:
    """Measure everything.

    Args:
        model: The model.
        package: Its folder.
        settings: How it is loaded.
        pool: Images, uint8 [N, height, width, 3], more than the largest batch.
        rounds: Of every timing.
        photos: A folder of labelled photos; None: accuracy is not counted.
        command: What repeats it.
        progress: Told about it: (stage, fraction of the stage).

    Raises:
        ModelError: The photos cannot be used.
    """
    progress("profiling", 0.0)
    profile = profile_variants(model, settings, pool[: max(BATCHES)], rounds)
    with ExitStack() as opened:
        ours = {name: opened.enter_context(open_session(variant, settings)) for name, variant in model.variants.items()}
        accuracy = None if photos is None else count_accuracy(model, package, ours, photos, settings, progress)
        energy = _measure_energy(ours, pool[: max(BATCHES)], progress)
        rivals, left_out = open_rivals(model, settings, opened)
        sessions: Mapping[str, engine.Session] = {**ours, **rivals}
        preprocessing = model.preprocessing
        floats = Normalisation(preprocessing.mean, preprocessing.std).apply(pool)
        rows = [row for batch in BATCHES for row in measure(sessions, floats, batch, rounds, progress)]
        for name in {row.variant for row in rows if row.agreement < _LEAST_AGREEMENT} - set(ours):
            left_out[name] = "its labels are not the baseline's, so its speed does not count"
        rows = [row for row in rows if row.variant not in left_out]
        speed = BenchDocument(
            model=model.name,
            machine=profile.machine,
            variants={name: describe(session) for name, session in sessions.items() if name not in left_out},
            rounds=rounds,
            measurements=[describe_row(row, rows) for row in rows],
        )
    return ReportDocument(
        model=model.name,
        machine=profile.machine,
        variants=profile.variants,
        command=command,
        versions={"tessera": service_version(), "python": platform.python_version(), **versions(), **_system()},
        profile=profile,
        speed=speed,
        left_out=left_out,
        accuracy=accuracy,
        energy=energy,
    )


def _system() -> dict[str, str]:
    return {"system": platform.platform()}


def _measure_energy(
    sessions: Mapping[str, engine.Session], images: npt.NDArray[np.uint8], progress: Callable[[str, float], None]
) -> EnergyBody:
    meter = EnergyMeter()
    problem = meter.problem()
    if problem:
        return EnergyBody(problem=problem, joules_per_image={})
    found = {}
    for name, session in sessions.items():
        progress(f"energy of {name}", 0.0)
        found[name] = _joules_per_image(meter, session, images)
    return EnergyBody(problem="", joules_per_image=found)


def _joules_per_image(meter: EnergyMeter, session: engine.Session, images: npt.NDArray[Any]) -> float:
    session.run(images)
    before, end, count = meter.read(), time.perf_counter() + _ENERGY_SECONDS, 0
    while time.perf_counter() < end:
        session.run(images)
        count += len(images)
    return meter.joules(before, meter.read()) / count


def report_page(document: ReportDocument) -> str:
    """The document as one HTML file that needs nothing else."""
    script, style = ((_BUILT / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    data = document.model_dump_json().replace("<", "\\u003c")  # so that no text in it ends its element
    title = html.escape(f"{document.model} on {document.machine}")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: Tessera</title>
<style>{style}</style>
<main id="report"></main>
<script type="application/json" id="document">{data}</script>
<script type="module">{script}</script>
</html>
"""
