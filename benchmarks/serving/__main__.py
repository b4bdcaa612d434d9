"""Our service against LitServe, mosec, BentoML and Ray Serve: real processes, photos over HTTP, one table.

    make bench-serving                                                # installs the peers, then everything below
    .venv/bin/python -m benchmarks.serving --peers build/serving      # with peers that are installed there
    .venv/bin/python -m benchmarks.serving --servers tessera,tessera-1,tessera-2 --rounds 3
    .venv/bin/python -m benchmarks.serving --corpus phone             # photos of 12 megapixels

All servers are started first and stay, stopped while others are visited. Each round measures the parts alone
and then visits every server in turn with every kind of load, for a few seconds each, so that a machine that is slow for
a minute is slow for all of them. The client shares the cores with the server. `--results` keeps rounds: what it already
holds is part of the tables, `--rounds 0` only prints them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.peer_models import PeerModels, find_data
from benchmarks.serving.alone import Alone, Parts
from benchmarks.serving.corpora import CORPORA
from benchmarks.serving.phases import CLIENTS, Run, Seconds, Visit, measure
from benchmarks.serving.process import ServerTree
from benchmarks.serving.servers import PEERS, Files, installed, start
from benchmarks.serving.tables import Round, alone_table, idle_table, ratios_table, servers_table
from tessera.engine import cpu_budget
from tessera.engine.machine import cpu_name
from tessera.models.registry import open_model

_ALONE = 1.0  # seconds for each part


def main() -> None:
    arguments = _arguments()
    data = find_data(arguments.data)
    cores = cpu_budget()
    cache = arguments.cache
    files = Files(data / "resnet50-imagenet", cache, arguments.openvino or cache / "openvino-int8.xml", arguments.peers)
    _build(data, files)
    photos = CORPORA[arguments.corpus](data / "imagenet-sample", cache)
    versions = {name: version for name in arguments.servers if (version := installed(name, files)) is not None}
    for name in arguments.servers:
        if name not in versions:
            print(f"{name} is left out: it is not installed in {files.environments}.")
    parts = Parts(files, photos, cores)
    reference = parts.reference()
    rounds = _read(arguments.results)
    names = list(versions)
    last = len(rounds) + arguments.rounds
    with ExitStack() as running:
        visits = {}
        for name in names if arguments.rounds else ():
            print(f"starting {name}", flush=True)
            visits[name] = running.enter_context(_visit(name, files, photos, cores, arguments.deadline))
        for number in range(len(rounds), last):
            alone = parts.measure(_ALONE * arguments.scale)
            runs = {}
            for turn in range(len(names)):  # nobody always follows the same one
                name = names[(turn + number) % len(names)]
                print(f"round {number + 1} of {last}: {name}", flush=True)
                runs[name] = measure(visits[name], Seconds.scaled(arguments.scale), arguments.deadline, number + 1)
            rounds.append(Round(alone, {name: runs[name] for name in names}))
            if arguments.results:
                arguments.results.write_text(json.dumps([asdict(done) for done in rounds]))
    for number, done in enumerate(rounds, start=1):
        if done.disturbed:
            print(f"round {number} does not count, {done.disturbed}")
    rounds = [done for done in rounds if not done.disturbed]
    if not rounds:
        raise SystemExit("No round had the machine to itself, so there is nothing to compare.")
    print(f"\n{time.strftime('%Y-%m-%d')}, {cpu_name()}, {cores} cores shared by client and server")
    print(f"{len(rounds)} rounds, photos: {arguments.corpus}, {CLIENTS} clients, deadline {arguments.deadline:g} s\n")
    for table in (
        servers_table(rounds, versions, reference),
        ratios_table(rounds, next(name for name in versions if name.startswith("tessera"))),
        alone_table(rounds),
        idle_table(rounds),
    ):
        print(table + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", type=lambda text: text.split(","), default=["tessera", *PEERS])
    parser.add_argument("--corpus", choices=list(CORPORA), default="imagenet", help="what clients send")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds, of clients in the overload phase")
    parser.add_argument("--scale", type=float, default=1.0, help="of the length of every phase (default 1)")
    parser.add_argument("--data", type=Path, help="folder with resnet50-imagenet and imagenet-sample")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/results/models"), help="built models")
    parser.add_argument("--openvino", type=Path, help="int8 model for the peers; default: NNCF makes one in the cache")
    parser.add_argument("--peers", type=Path, default=Path("build/serving"), help="a virtual environment per peer")
    parser.add_argument("--results", type=Path, help="file that keeps rounds")
    return parser.parse_args()


def _build(data: Path, files: Files) -> None:
    """Build what is not there yet: our int8 with `tessera models quantise`'s defaults, OpenVINO's with NNCF's."""
    own = files.cache / "openvino-int8.xml"
    if files.openvino == own and not own.exists():
        PeerModels(data, files.cache).openvino_int8()
    if not files.openvino.exists():
        raise SystemExit(f"There is no {files.openvino}; leave --openvino out to have NNCF make one.")
    precision = open_model(files.model, cache=files.cache).variants["optimised"].precision
    if precision != "int8":
        photos = data / "imagenet-sample"
        command = f"tessera models quantise {photos} --model-path {files.model} --cache-dir {files.cache}"
        raise SystemExit(f"The optimised variant in {files.cache} is {precision}; quantise it first: {command}")


@contextmanager
def _visit(name: str, files: Files, photos: list[Path], cores: int, deadline: float) -> Iterator[Visit]:
    begun = start(name, files, cores=cores, deadline=deadline)
    with (
        tempfile.NamedTemporaryFile(suffix=f"-{name}.log") as log,
        ServerTree(begun.command, begun.settings, Path(log.name)) as tree,
    ):
        visit = Visit(begun, tree, photos)
        visit.wait_until_ready()
        tree.pause()
        yield visit


def _read(results: Path | None) -> list[Round]:
    if results is None or not results.exists():
        return []
    rounds = []
    for entry in json.loads(results.read_text()):
        runs = {name: Run(**_run(run)) for name, run in entry["runs"].items()}
        rounds.append(Round(Alone(**entry["alone"]), runs))
    return rounds


def _run(entry: dict[str, object]) -> dict[str, object]:
    """JSON has no tuples and no whole numbers as keys."""
    statuses = entry["statuses"]
    assert isinstance(statuses, dict)
    return {**entry, "statuses": {int(status): count for status, count in statuses.items()}}


if __name__ == "__main__":
    main()
