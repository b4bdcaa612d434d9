"""Time every layer of each variant, against what the machine could do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from tessera import engine
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.commands.trace import write_trace
from tessera.app.figures.documents import LayerBody, ProfileDocument, VariantBody, write_document
from tessera.app.figures.images import find_images, load_images
from tessera.app.figures.profiling import profile_variants
from tessera.app.served.loading import open_configured_model
from tessera.app.served.selection import check_variant, read_model_folder
from tessera.app.settings import Settings
from tessera.engine.backends import BACKENDS
from tessera.engine.quantize.files import check_target
from tessera.wording import counted

_WIDTH = 150
_BUFFERS = ("UB", "L1", "L2", "memory")  # in which devices count bytes
_NOT_COUNTED = "not counted by this chip"


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print a table per variant and the summary."""
    if arguments.variant is not None:
        check_variant(arguments.variant, "--variant")
    for target in filter(None, (arguments.json, arguments.trace)):
        check_target(target)
    photos = find_images(arguments.images)
    slices: dict[str, list[engine.Slice]] = {}
    caches: dict[str, dict[str, int]] = {}

    def visit(name: str, session: engine.Session) -> None:
        info = session.describe()
        caches[name] = BACKENDS[info.backend].caches(info)
        if arguments.trace is not None:
            slices[name] = session.trace(images)

    with ProgressDisplay() as display:
        images = load_images(photos, arguments.batch, read_model_folder(settings, display).preprocessing)
        model = open_configured_model(settings, display)
        display("profiling", 0.0)
        document = profile_variants(model, settings, images, arguments.runs, only=arguments.variant, visit=visit)
    _print(document, caches)
    if arguments.trace is not None:
        about = document.model_dump(include={"model", "machine", "batch", "tessera"})
        write_trace(arguments.trace, slices, about)
    if arguments.json is not None:
        write_document(arguments.json, document)
    return 0


def _print(document: ProfileDocument, caches: dict[str, dict[str, int]]) -> None:
    console = Console(width=_WIDTH)
    for name, variant in document.variants.items():
        title = f"{name}: {variant.backend}, {variant.precision}, {variant.isa}{_peak_words(variant)}"
        console.print(f"\n{title}", highlight=False)
        console.print(_layers(document.layers[name], caches[name]))
    console.print(f"\n{document.model} on {document.machine}, batch {document.batch}", highlight=False)
    console.print(_comparison(document))


def _peak_words(variant: VariantBody) -> str:
    """Which peak the shares are of."""
    peak = variant.peak_macs_per_second
    if peak is None:
        return ""
    return f"; of peak: of {peak / 1e9:,.0f} GMAC/s in {variant.precision}, {counted(variant.threads, 'thread')}"


def _layers(rows: Sequence[LayerBody], caches: dict[str, int]) -> Table:
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


def _comparison(document: ProfileDocument) -> Table:
    every = list(document.summaries.values())
    both = len(every) == 2
    table = Table(box=box.MARKDOWN)
    table.add_column("")
    for name in (*document.summaries, *(["ratio"] if both else [])):
        table.add_column(name, justify="right")

    def add(title: str, cells: list[str], ratio: float | None = None) -> None:
        table.add_row(title, *cells, *([f"{ratio:.2f}x" if ratio else ""] if both else []))

    def ratio(values: list[float]) -> float | None:
        return values[0] / values[1] if both and values[1] else None

    times, times_3x3 = [s.milliseconds for s in every], [s.milliseconds_3x3 for s in every]
    add("latency of the batch, ms", [f"{time:.2f}" for time in times], ratio(times))
    add("all 3x3 convolutions, ms", [f"{time:.2f}" for time in times_3x3], ratio(times_3x3))
    add("images/s", [f"{s.images_per_second:.1f}" for s in every])
    if any(s.mac_ratio is not None for s in every):
        add("matrix unit busy (mac ratio)", ["" if s.mac_ratio is None else f"{s.mac_ratio:.1%}" for s in every])
    if any(s.core_share is not None for s in every):
        add("cores busy (cube utilisation)", ["" if s.core_share is None else f"{s.core_share:.1%}" for s in every])
    if any(s.bandwidths for s in every):
        for buffer in _BUFFERS:
            values = [s.bandwidths.get(buffer) for s in every]
            add(f"{buffer} read and written, GB/s", [_NOT_COUNTED if v is None else f"{v:.1f}" for v in values])
    add("compute utilisation", [f"{s.peak_share:.1%}" for s in every])
    add("utilisation of the 3x3 convolutions", [f"{s.peak_share_3x3:.1%}" for s in every])
    add("on-chip reuse, MAC per byte moved", [f"{s.macs_per_byte:.0f}" for s in every])
    if any(s.cache_share for s in every):
        add("bytes of layers that fit L2", [f"{s.cache_share:.0%}" for s in every])
    return table


def _fits(size: int, caches: dict[str, int]) -> str:
    return next((name for name, capacity in sorted(caches.items()) if size <= capacity), "memory")
