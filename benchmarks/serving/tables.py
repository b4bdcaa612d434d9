"""Rounds to Markdown: medians over rounds, ratios within a round; percentiles are of all rounds' requests together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from benchmarks.serving.alone import Alone
from benchmarks.serving.phases import Run

OURS = "tessera"
MOST_FOREIGN = 0.1  # cores that others may take in a visit before its round says nothing about servers


@dataclass
class Round:
    """One turn over everything: the parts alone, then every server."""

    alone: Alone
    runs: dict[str, Run]

    @property
    def disturbed(self) -> str:
        """Why the round does not count, or nothing: it was not alone on the machine."""
        found = [f"{name} {run.foreign:.2f}" for name, run in self.runs.items() if run.foreign > MOST_FOREIGN]
        return f"cores taken by other processes: {', '.join(found)} (at most {MOST_FOREIGN})" if found else ""


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; infinite of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else inf


def overhead(run: Run, alone: Alone) -> float:
    """Seconds of a lone request beyond decode, compute, and what a server that does nothing takes."""
    beyond = [round_trip - decode - compute for round_trip, decode, _, compute in run.idle]
    return median(beyond) - alone.echo if beyond else inf


def ideal(alone: Alone, engine: float) -> float:
    """Photos per second if the cores did nothing but decode and compute, one after the other."""
    return 1.0 / (1.0 / engine + 1.0 / alone.decode)


def servers_table(rounds: list[Round], versions: dict[str, str], reference: list[int]) -> str:
    """A row per server."""
    header = (
        "server",
        "photos/s",
        "of engine + decode alone",
        "server core ms/photo",
        "client cores",
        "p50 / p99 ms at 70 %",
        "goodput at 300 %, of capacity",
        "refused / unanswered",
        "refusal p50 / p99 ms",
        "idle overhead ms",
        "same label as fp32",
    )
    rows = []
    for name in rounds[0].runs:
        engines = [r.alone.engine if name.partition("-")[0] == OURS else r.alone.openvino for r in rounds]
        runs = [r.runs[name] for r in rounds]
        tails = [second for run in runs for second in run.tail]
        refusals = [second for run in runs for second in run.refusals]
        labels = [pair for run in runs for pair in run.labels]
        share = [run.throughput / ideal(r.alone, speed) for run, r, speed in zip(runs, rounds, engines, strict=True)]
        beyond = [overhead(run, r.alone) for run, r in zip(runs, rounds, strict=True)]
        agreement = sum(reference[photo] == label for photo, label in labels) / max(1, len(labels))
        rows.append(
            (
                f"{name} ({versions[name]})",
                f"{_median(runs, lambda run: run.throughput):.1f}",
                f"{median(share):.2f}",
                f"{1e3 * _median(runs, lambda run: run.server_core):.1f}",
                f"{_median(runs, lambda run: run.client_share):.3f}",
                f"{1e3 * percentile(tails, 0.5):.0f} / {1e3 * percentile(tails, 0.99):.0f}",
                f"{_median(runs, lambda run: run.goodput / run.throughput):.2f}",
                f"{len(refusals)} / {sum(run.lost for run in runs)}",
                f"{1e3 * percentile(refusals, 0.5):.1f} / {1e3 * percentile(refusals, 0.99):.1f}" if refusals else "-",
                f"{1e3 * median(beyond):.2f}",
                f"{agreement:.1%}",
            )
        )
    return _markdown(header, rows)


def ratios_table(rounds: list[Round], ours: str = OURS) -> str:
    """Ours over each peer's: the median of rounds and its quartiles, and p99 over p99 of all rounds' requests."""
    peers = [name for name in rounds[0].runs if not name.startswith(OURS)]
    rows = []
    for name in peers:
        throughput, tail, goodput, beyond = (_spread([ratio(r, name) for r in rounds]) for ratio in _ratios(ours))
        rows.append((name, throughput, tail, f"{_pooled(rounds, ours) / _pooled(rounds, name):.2f}", goodput, beyond))
    header = ("ours over", "throughput", "p99 at 70 %", "of all rounds together", "goodput at 300 %", "idle overhead")
    return _markdown(header, rows)


def alone_table(rounds: list[Round]) -> str:
    """The parts without HTTP."""
    alone = [r.alone for r in rounds]
    rows = [
        ("decode, all cores", f"{_median(alone, lambda a: a.decode):.0f} photos/s"),
        ("decode, one photo", f"{1e3 * _median(alone, lambda a: a.decode_one):.2f} ms"),
        ("our engine, batch 16", f"{_median(alone, lambda a: a.engine):.1f} images/s"),
        ("our engine, one image", f"{1e3 * _median(alone, lambda a: a.engine_one):.1f} ms"),
        ("OpenVINO, batch 16", f"{_median(alone, lambda a: a.openvino):.1f} images/s"),
        ("OpenVINO, one image", f"{1e3 * _median(alone, lambda a: a.openvino_one):.1f} ms"),
        ("echo, round trip", f"{1e3 * _median(alone, lambda a: a.echo):.2f} ms"),
        ("our engine + decode", f"{_median(alone, lambda a: ideal(a, a.engine)):.1f} photos/s"),
        ("OpenVINO + decode", f"{_median(alone, lambda a: ideal(a, a.openvino)):.1f} photos/s"),
    ]
    return _markdown(("alone, same cores", "rate or time"), rows)


def idle_table(rounds: list[Round]) -> str:
    """Where a lone request's time goes."""
    rows = []
    for name in rounds[0].runs:
        seen = [times for r in rounds for times in r.runs[name].idle]
        middles = [1e3 * median(times[column] for times in seen) for column in range(4)] if seen else [inf] * 4
        rows.append((name, *(f"{value:.2f}" for value in middles)))
    return _markdown(("one request, idle server", "round trip ms", "decode ms", "queue ms", "compute ms"), rows)


def _ratios(ours: str) -> tuple[Callable[[Round, str], float], ...]:
    return (
        lambda r, peer: r.runs[ours].throughput / r.runs[peer].throughput,
        lambda r, peer: percentile(r.runs[ours].tail, 0.99) / percentile(r.runs[peer].tail, 0.99),
        lambda r, peer: r.runs[ours].goodput / r.runs[peer].goodput if r.runs[peer].goodput else inf,
        lambda r, peer: overhead(r.runs[ours], r.alone) / overhead(r.runs[peer], r.alone),
    )


def _pooled(rounds: list[Round], name: str) -> float:
    """The p99 at 70 % of all rounds' requests."""
    return percentile([second for r in rounds for second in r.runs[name].tail], 0.99)


def _spread(values: list[float]) -> str:
    """Median and quartiles."""
    return f"{median(values):.2f} ({percentile(values, 0.25):.2f} to {percentile(values, 0.75):.2f})"


def _median(items: Sequence[object], figure: Callable[..., float]) -> float:
    return median(figure(item) for item in items)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
