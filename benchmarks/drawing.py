"""The pictures of `benchmarks/simulate.py`; needs matplotlib (`pip install -e '.[bench]'`)."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.simulate import LOADS, SERVERS, STREAMS, TIMEOUTS
from benchmarks.simulation import Result

# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = {
    "Tessera": "#D55E00",
    "no batching": "#009E73",
    "FIFO, take all": "#0072B2",
    "5 ms timer": "#56B4E9",
    "10 ms timer": "#CC79A7",
}
_STYLES = {"Tessera": "-", "no batching": "--", "FIFO, take all": "-.", "5 ms timer": ":", "10 ms timer": (0, (1, 3))}


def draw_loads(table: dict[tuple[str, str, str], list[Result]], path: Path) -> None:
    """Goodput, p50 and p99 over load: a row of each per machine, a column per stream."""
    figure = Figure(figsize=(11, 12), layout="constrained")
    axes = figure.subplots(2 * len(SERVERS), len(STREAMS), sharex=True)
    for row, (machine, server) in enumerate(SERVERS.items()):
        for column, stream in enumerate(STREAMS):
            goodput, tail = axes[2 * row][column], axes[2 * row + 1][column]
            for rule, colour in _COLOURS.items():
                results = table[machine, stream, rule]
                style = {"color": colour, "linestyle": _STYLES[rule], "linewidth": 3 if rule == "Tessera" else 1.8}
                goodput.plot(LOADS, [r.goodput() / server.capacity() for r in results], label=rule, **style)
                tail.plot(LOADS, [r.latency(99) * 1e3 for r in results], **style)
            goodput.set_title(f"{machine}, {stream} arrivals, deadline {TIMEOUTS[machine] * 1e3:.0f} ms")
            goodput.set_ylabel("answered in time / capacity")
            tail.set_ylabel("p99 of answers, ms")
            tail.axhline(TIMEOUTS[machine] * 1e3, color="black", linewidth=0.8)
            for axis in (goodput, tail):
                axis.set_ylim(bottom=0)
                axis.grid(alpha=0.3)
                axis.set_xlabel("offered load / capacity")
    axes[0][0].legend()
    _save(figure, path)


def draw_steps(runs: dict[str, Result], capacity: float, seconds: float, path: Path) -> None:
    """Answers in time per second while the load goes from 50 % to 300 % and back."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axis = figure.subplots()
    width = 0.5
    edges = np.arange(0, 3 * seconds + width, width)
    for rule, result in runs.items():
        answered = [request.answered for request in result.requests if request.in_time]
        counts, _ = np.histogram(answered, edges)
        axis.plot(
            edges[:-1] + width / 2,
            counts / width / capacity,
            color=_COLOURS[rule],
            linestyle=_STYLES[rule],
            linewidth=3 if rule == "Tessera" else 1.8,
            label=rule,
        )
    axis.axvspan(seconds, 2 * seconds, color="black", alpha=0.06)
    axis.text(1.5 * seconds, 1.12, "300 % offered", ha="center")
    axis.set_ylim(0, 1.25)
    axis.set_xlabel("seconds")
    axis.set_ylabel("answered in time / capacity")
    axis.set_title("CPU, deadline 250 ms: 50 % of capacity, then 300 %, then 50 %")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "tessera"}):  # the same picture is the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
