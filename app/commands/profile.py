"""Time every layer of each variant, against what the machine could do."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tessera import engine
from tessera.app.commands.bench import load_images
from tessera.app.commands.documents import (
    ProfileDocument,
    VariantBody,
    describe,
    describe_layer,
    write_document,
)
from tessera.app.commands.flags import RUN_SETTINGS, add_settings_flags, settings_from
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.commands.trace import write_trace
from tessera.app.served.loading import open_configured_model, open_session
from tessera.app.served.selection import check_variant, find_model
from tessera.app.version import service_version
from tessera.engine.backends import BACKENDS
from tessera.engine.quantize.files import check_target
from tessera.models.package import read_package
from tessera.wording import counted

_WIDTH = 150


@dataclass(frozen=True)
class Summary:
    """The figures of one variant that the reference article quotes."""

    milliseconds: float
    milliseconds_3x3: float
    macs: int
    bytes_moved: int
    utilisation: float
    utilisation_3x3: float
    mac_ratio: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("--batch", type=int, choices=range(1, 17), default=16, metavar="N", help="images (default 16)")
    parser.add_argument("--runs", type=int, choices=range(1, 1001), default=15, metavar="N", help="runs (default 15)")
    parser.add_argument("--images", type=Path, help="folder of photos to run (default: generated images)")
    parser.add_argument("--variant", help="only this variant (default: all, side by side)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    parser.add_argument("--trace", metavar="FILE", type=Path, help="also write a trace of one run, for Perfetto")
    add_settings_flags(parser, RUN_SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Print a table per variant and the summary."""
    settings = settings_from(arguments)
    if arguments.variant is not None:
        check_variant(arguments.variant, "--variant")
    for target in filter(None, (arguments.json, arguments.trace)):
        check_target(target)
    images = load_images(arguments.images, arguments.batch, read_package(find_model(settings)).preprocessing)
    console = Console(width=_WIDTH)
    summaries: dict[str, Summary] = {}
    layers: dict[str, list[engine.LayerTiming]] = {}
    described: dict[str, VariantBody] = {}
    slices: dict[str, list[engine.Slice]] = {}
    with ProgressDisplay() as display:
        model = open_configured_model(settings, display)
        for name, variant in model.variants.items():
            if arguments.variant not in (None, name):
                continue
            display(f"profiling {name}", 0.0)
            with open_session(variant, settings) as session:
                info = session.describe()
                rows = session.profile(images, runs=arguments.runs)
                peak = session.peak()
                summaries[name], layers[name], described[name] = _summarise(rows), rows, describe(session)
                backend = BACKENDS[info.backend]
                if arguments.trace is not None:
                    slices[name] = session.trace(images)
            console.print(
                f"\n{name}: {info.backend}, {info.precision}, {info.isa}{_peak_words(peak, info)}", highlight=False
            )
            console.print(_layers(rows, backend.caches(info)))
    machine = backend.machine(info)
    console.print(f"\n{model.name} on {machine}, batch {arguments.batch}", highlight=False)
    console.print(_comparison(summaries, arguments.batch))
    if arguments.trace is not None:
        about = {"model": model.name, "machine": machine, "batch": arguments.batch, "tessera": service_version()}
        write_trace(arguments.trace, slices, about)
    if arguments.json is not None:
        write_document(
            arguments.json,
            ProfileDocument(
                model=model.name,
                machine=machine,
                variants=described,
                batch=arguments.batch,
                runs=arguments.runs,
                layers={name: [describe_layer(row) for row in rows] for name, rows in layers.items()},
            ),
        )
    return 0


def _summarise(rows: list[engine.LayerTiming]) -> Summary:
    small = [row for row in rows if row.layer_class.startswith("3x3")]
    return Summary(
        milliseconds=sum(row.milliseconds for row in rows),
        milliseconds_3x3=sum(row.milliseconds for row in small),
        macs=sum(row.macs for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        utilisation=_share_of_peak(rows),
        utilisation_3x3=_share_of_peak(small),
        mac_ratio=_mac_ratio(rows),
    )


def _peak_words(peak: float | None, info: engine.SessionInfo) -> str:
    """Which peak the shares are of."""
    if peak is None:
        return ""
    return f"; of peak: of {peak / 1e9:,.0f} GMAC/s in {info.precision}, {counted(info.threads, 'thread')}"


def _share_of_peak(rows: list[engine.LayerTiming]) -> float:
    """MAC/s of all rows together over the peak: the mean of their shares, weighted by time."""
    total = sum(row.milliseconds for row in rows)
    return sum(row.peak_share * row.milliseconds for row in rows) / total if total else 0.0


def _mac_ratio(rows: list[engine.LayerTiming]) -> float | None:
    """Share of all time in which the matrix unit worked; None where no device counts it."""
    counted = [row for row in rows if row.mac_ratio is not None]
    total = sum(row.milliseconds for row in rows)
    return sum(row.milliseconds * (row.mac_ratio or 0.0) for row in counted) / total if counted and total else None


def _layers(rows: list[engine.LayerTiming], caches: dict[str, int]) -> Table:
    counted = any(row.mac_ratio is not None for row in rows)
    bound = any(row.bound for row in rows)
    table = Table(box=box.MARKDOWN)
    for heading in ("layer", "class", "kernel"):
        table.add_column(heading)
    headings = [
        "ms",
        "MMAC",
        *(["mac ratio"] if counted else []),
        "of peak",
        *(["of reads", "bound by"] if bound else []),
    ]
    for heading in (*headings, "kB moved", "working set"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            row.layer_class,
            row.kernel,
            f"{row.milliseconds:.3f}",
            f"{row.macs / 1e6:.0f}" if row.macs else "",
            *(["" if row.mac_ratio is None else f"{row.mac_ratio:.0%}"] if counted else []),
            f"{row.peak_share:.0%}" if row.peak_share else "",
            *([f"{row.memory_share:.0%}" if row.memory_share else "", row.bound or ""] if bound else []),
            f"{row.bytes_moved / 1e3:.0f}" if row.bytes_moved else "",
            f"{row.working_set / 1e3:.0f} kB, {_fits(row.working_set, caches)}" if row.working_set else "",
        )
    return table


def _comparison(summaries: dict[str, Summary], batch: int) -> Table:
    every = list(summaries.values())
    both = len(every) == 2
    table = Table(box=box.MARKDOWN)
    table.add_column("")
    for name in (*summaries, *(["ratio"] if both else [])):
        table.add_column(name, justify="right")

    def add(title: str, cells: list[str], ratio: float | None = None) -> None:
        table.add_row(title, *cells, *([f"{ratio:.2f}x" if ratio else ""] if both else []))

    def ratio(values: list[float]) -> float | None:
        return values[0] / values[1] if both and values[1] else None

    times, times_3x3 = [s.milliseconds for s in every], [s.milliseconds_3x3 for s in every]
    add("latency of the batch, ms", [f"{time:.2f}" for time in times], ratio(times))
    add("all 3x3 convolutions, ms", [f"{time:.2f}" for time in times_3x3], ratio(times_3x3))
    add("images/s", [f"{batch / time * 1e3:.1f}" for time in times])
    if any(s.mac_ratio is not None for s in every):
        add("matrix unit busy (mac ratio)", ["" if s.mac_ratio is None else f"{s.mac_ratio:.1%}" for s in every])
    add("compute utilisation", [f"{s.utilisation:.1%}" for s in every])
    add("utilisation of the 3x3 convolutions", [f"{s.utilisation_3x3:.1%}" for s in every])
    add("on-chip reuse, MAC per byte moved", [f"{s.macs / max(1, s.bytes_moved):.0f}" for s in every])
    return table


def _fits(size: int, caches: dict[str, int]) -> str:
    return next((name for name, capacity in sorted(caches.items()) if size <= capacity), "memory")
