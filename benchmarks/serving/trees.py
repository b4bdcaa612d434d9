"""This tree's service against another tree's, such as that of the commit before: both running, loaded in turns.

    git worktree add ../before COMMIT && cd ../before && python3 -m venv .venv && .venv/bin/pip install -e .
    .venv/bin/python -m benchmarks.serving.trees ../before --cache ../before/cache                  # ImageNet photos
    .venv/bin/python -m benchmarks.serving.trees ../before --cache ../before/cache --corpus phone

Each tree serves what its own `tessera models quantise` made of the same photos, in the cache folder that is named;
ours is that of `benchmarks.serving`. Besides throughput with 32 clients, a dozen requests one at a time say what a
photo costs an idle server, beside what Pillow takes for it in the client.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.decoding import pillow
from benchmarks.peer_models import find_data
from benchmarks.serving.corpora import CORPORA
from benchmarks.serving.phases import CLIENTS, Visit
from benchmarks.serving.process import REPOSITORY, ServerTree, free_port
from benchmarks.serving.servers import Start
from tessera.engine.machine import cpu_name

_ALONE = 12  # requests one at a time, in each round
_PAUSE = 0.01  # seconds between them

# What is compared, of each round: photos a second, then milliseconds.
_FIGURES = ("photos/s", "decode_ms", "round trip", "beyond decode and compute")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.trees", description=__doc__.partition("\n")[0])
    parser.add_argument("tree", type=Path, help="the other tree, with an environment in .venv")
    parser.add_argument("--cache", type=Path, required=True, help="cache folder of the other tree's model")
    parser.add_argument("--corpus", choices=list(CORPORA), default="imagenet", help="what clients send")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each tree in a round (default 3)")
    parser.add_argument("--data", type=Path, help="folder with resnet50-imagenet and imagenet-sample")
    arguments = parser.parse_args()
    data, cache = find_data(arguments.data), REPOSITORY / "benchmarks/results/models"
    photos = CORPORA[arguments.corpus](data / "imagenet-sample", cache)
    model = data / "resnet50-imagenet"
    rounds: list[dict[str, tuple[float, ...]]] = []
    with ExitStack() as running:
        visits = {
            "before": running.enter_context(_visit(arguments.tree.resolve(), arguments.cache.resolve(), model, photos)),
            "now": running.enter_context(_visit(REPOSITORY, cache, model, photos)),
        }
        for number in range(arguments.rounds):
            names = list(visits) if number % 2 else list(visits)[::-1]
            some = photos[number % 4 :: 4][:_ALONE]
            taken = {name: _measure(*visits[name], number, some, arguments.seconds) for name in names}
            rounds.append({**taken, "pillow": (_pillow(some),)})
    _print(rounds, f"{cpu_name()}, photos: {arguments.corpus}, {CLIENTS} clients, {arguments.rounds} rounds")


@contextmanager
def _visit(tree: Path, cache: Path, model: Path, photos: list[Path]) -> Iterator[tuple[Visit, int]]:
    port = free_port()
    # -P: modules come from the tree that is named, not from the folder that this runs in.
    command = [str(tree / ".venv/bin/python"), "-P", "-m", "tessera.app.cli", "serve", "--port", str(port)]
    command += ["--log-level", "warning", "--model-path", str(model), "--cache-dir", str(cache)]
    settings = {"PYTHONPATH": str(tree)}
    with tempfile.NamedTemporaryFile(suffix=".log") as log, ServerTree(command, settings, Path(log.name)) as server:
        visit = Visit(Start(command, settings, port, "/v1/classify"), server, photos)
        visit.wait_until_ready()
        server.pause()
        yield visit, port


def _measure(visit: Visit, port: int, number: int, photos: Sequence[Path], seconds: float) -> tuple[float, ...]:
    """The figures of one round, in the order of `_FIGURES`."""
    visit.begin(number + 1)
    load, _ = visit.throughput(seconds)
    rate = sum(record.status == 200 for record in load.records) / seconds
    alone = [_ask(port, photo) for photo in photos]
    visit.end()
    return rate, *(median(column) for column in zip(*alone, strict=True))


def _ask(port: int, photo: Path) -> tuple[float, float, float]:
    """Decoding, round trip, and what is neither decoding nor waiting nor computing, in milliseconds."""
    body = photo.read_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    started = time.perf_counter()
    connection.request("POST", "/v1/classify", body, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse().read()
    trip = (time.perf_counter() - started) * 1000
    connection.close()
    time.sleep(_PAUSE)
    timing = json.loads(answer)["results"][0]["timing"]
    return timing["decode_ms"], trip, trip - timing["decode_ms"] - timing["queue_ms"] - timing["compute_ms"]


def _pillow(photos: Sequence[Path]) -> float:
    taken = []
    for photo in photos:
        body = photo.read_bytes()
        started = time.perf_counter()
        pillow(body)
        taken.append((time.perf_counter() - started) * 1000)
        time.sleep(_PAUSE)
    return median(taken)


def _print(rounds: list[dict[str, tuple[float, ...]]], title: str) -> None:
    table = Table("", "before", "now", "now over before", box=box.MARKDOWN)
    for index, figure in enumerate(_FIGURES):
        before, now = ([each[name][index] for each in rounds] for name in ("before", "now"))
        ratio = median(b / a for a, b in zip(before, now, strict=True))
        table.add_row(figure, f"{median(before):.2f}", f"{median(now):.2f}", f"{ratio:.2f}")
    in_client = [each["pillow"][0] for each in rounds]
    over = {
        name: median(each[name][1] / taken for each, taken in zip(rounds, in_client, strict=True))
        for name in ("before", "now")
    }
    table.add_row(
        f"decode_ms over Pillow's in the client ({median(in_client):.2f})", *(f"{o:.2f}" for o in over.values())
    )
    console = Console(width=120)
    console.print(title)
    console.print(table)


if __name__ == "__main__":
    main()
