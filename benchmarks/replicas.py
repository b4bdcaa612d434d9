"""What a second replica on a second core gives: real replicas behind the real Envoy, each pinned to a core.

    .venv/bin/python -m benchmarks.replicas                    # two cores carry everything, clients and Envoy included
    .venv/bin/python -m benchmarks.replicas --around 2,3       # those have cores of their own
    .venv/bin/python -m benchmarks.replicas --corpus imagenet  # photos as they are, not ready-made of 224 x 224

Rounds visit three cases in turn, for as many seconds each. In all of them a replica has one core and one engine thread.

one    A replica behind an Envoy, on one core, and in the next round on the other. The other core is idle.
apart  Both replicas at once, each behind an Envoy of its own and asked by clients of its own.
two    Both behind one Envoy, asked by twice as many clients, who do not know of them.

Clients and Envoys take core time too, and on a machine of two cores there is nowhere else for them. So each case is one
system on the cores that it is given: in `one` they share the replica's core, in `two` they share both. What two cores
answer is compared with what one core answered, all included on either side. The core time of each part is measured
beside it; the replicas' own says what the ratio is without the rest. `two` over `apart` is what the balancer loses, on
a machine that is equally busy. Where the cores are two threads of one physical core, only that one means something.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from benchmarks.peer_models import find_data
from benchmarks.serving.client import Job
from benchmarks.serving.process import busy_core_seconds, core_seconds
from benchmarks.serving.tables import percentile
from tessera.engine.machine import cpu_name
from tests.envoy import Envoy
from tests.integration.oip.grpc_clients import listening_at
from tests.servers import REPOSITORY, ServerProcess

MOST_FOREIGN = 0.05  # share of a case's core time that others may take, or its round does not count
PHOTOS = 48
SMALL = 224
_PORT = slice(len("http://"), None)

Cores = frozenset[int]


@dataclass(frozen=True)
class Stream:
    """Replicas, the Envoy before them, and the cores on which their clients run."""

    replicas: tuple[ServerProcess, ...]
    envoy: Envoy
    cores: Cores


@dataclass(frozen=True)
class Visit:
    """One case in one round.

    Attributes:
        rate: Photos answered per second.
        seconds: How long each answer took.
        refused: Requests that were not answered with 200.
        replicas: Core seconds of the replicas per photo; so for the next two.
        envoy: Of the Envoys.
        client: Of the clients.
        foreign: Core time of everybody else, as a share of all that there was.
    """

    rate: float
    seconds: list[float]
    refused: int
    replicas: float
    envoy: float
    client: float
    foreign: float

    @property
    def total(self) -> float:
        """Core seconds per photo."""
        return self.replicas + self.envoy + self.client


@contextmanager
def on(cores: Cores) -> Iterator[None]:
    """Processes that are started inside run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(cores: list[int], around: Cores, folder: Path, held: ExitStack) -> Callable[[str, int], list[Stream]]:
    """Start two replicas and three Envoys; returns what makes the streams of a case in a round."""
    replicas = []
    for core in cores:
        with on(frozenset({core})):
            replicas.append(held.enter_context(ServerProcess(grpc_port=0, page=False, log_level="info")))

    def stream(name: str, *numbers: int) -> Stream:
        chosen = tuple(replicas[number] for number in numbers)
        place = around or frozenset(cores[number] for number in numbers)
        http, grpc = [replica.url[_PORT] for replica in chosen], [listening_at(replica) for replica in chosen]
        (folder / name).mkdir()
        with on(place):
            envoy = held.enter_context(Envoy(folder / name, {"http": http, "grpc": grpc}))
        envoy.wait_for_replicas({"http": len(chosen), "grpc": len(chosen)})
        return Stream(chosen, envoy, place)

    single = [stream("first", 0), stream("second", 1)]
    both = stream("both", 0, 1)

    def streams(case: str, number: int) -> list[Stream]:
        return {"one": [single[number % 2]], "apart": single, "two": [both]}[case]

    return streams


def visit(streams: list[Stream], photos: list[str], clients: int, seconds: float) -> Visit:
    """Have clients ask each stream without pause, `clients` for every replica."""
    replicas = [replica.process.pid for stream in streams for replica in stream.replicas]
    envoys = [stream.envoy.pid for stream in streams]
    before = [sum(map(core_seconds, pids)) for pids in (replicas, envoys)]
    others, started = _foreign(replicas + envoys), time.perf_counter()
    asking = []
    for stream in streams:
        port = int(stream.envoy.http.rpartition(":")[2])
        job = Job(port, "/v1/classify", photos, "closed", seconds, clients * len(stream.replicas))
        with on(stream.cores):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.serving.client"],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(job)))
        process.stdin.close()
        asking.append(process)
    loads = []
    for process in asking:
        assert process.stdout is not None
        loads.append(json.loads(process.stdout.read()))
        if process.wait() != 0:
            raise SystemExit("a client failed")
    wall = time.perf_counter() - started
    after = [sum(map(core_seconds, pids)) for pids in (replicas, envoys)]
    foreign = (_foreign(replicas + envoys) - others) / (wall * len(os.sched_getaffinity(0)))
    answered = [record["seconds"] for load in loads for record in load["records"] if record["status"] == 200]
    refused = sum(len(load["records"]) for load in loads) - len(answered)
    if not answered:
        raise SystemExit("no photo was answered; give the replicas more seconds or fewer clients")
    rate = sum(sum(record["status"] == 200 for record in load["records"]) / load["wall"] for load in loads)
    of_replicas, of_envoys = ((end - begin) / len(answered) for begin, end in zip(before, after, strict=True))
    of_clients = sum(load["core"] for load in loads) / len(answered)
    return Visit(rate, answered, refused, of_replicas, of_envoys, of_clients, max(0.0, foreign))


def _foreign(ours: list[int]) -> float:
    """Core time that the machine has spent on neither these processes, nor this one, nor its clients."""
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return busy_core_seconds() - sum(map(core_seconds, ours)) - sum(used.ru_utime + used.ru_stime for used in own)


def make_photos(corpus: str, data: Path, folder: Path) -> list[str]:
    """Some of ImageNet's photos, as they are or cut to the network's size."""
    found = sorted((data / "imagenet-sample").glob("*.JPEG"))
    chosen = [found[index * len(found) // PHOTOS] for index in range(PHOTOS)]
    if corpus == "imagenet":
        return [str(photo) for photo in chosen]
    made = []
    for photo in chosen:
        with Image.open(io.BytesIO(photo.read_bytes())) as picture:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            square = picture.convert("RGB").resize((SMALL, SMALL), box=(left, top, left + side, top + side))
        square.save(folder / photo.name, "JPEG", quality=90)
        made.append(str(folder / photo.name))
    return made


def table(visits: dict[str, list[Visit]]) -> str:
    """Medians over rounds, as Markdown."""
    lines = [
        "| case | photos/s | p50, ms | p99, ms | refused | core-ms a photo: replicas | Envoy | clients |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case, found in visits.items():
        seconds = [second for each in found for second in each.seconds]
        figures = [
            f"{median(each.rate for each in found):.1f}",
            *(f"{percentile(seconds, share) * 1e3:.0f}" for share in (0.5, 0.99)),
            str(sum(each.refused for each in found)),
            *(f"{median(pick(each) for each in found) * 1e3:.2f}" for pick in _PARTS),
        ]
        lines.append(f"| {case} | {' | '.join(figures)} |")
    return "\n".join(lines)


_PARTS: list[Callable[[Visit], float]] = [lambda each: each.replicas, lambda each: each.envoy, lambda each: each.client]


def ratios(visits: dict[str, list[Visit]]) -> str:
    """What two are over one, within each round."""
    one, apart, two = (visits[case] for case in ("one", "apart", "two"))

    def over(name: str, found: list[float]) -> str:
        return f"{name}: {median(found):.3f} ({min(found):.3f} to {max(found):.3f})"

    return "\n".join(
        [
            over("two over one, photos/s", [b.rate / a.rate for a, b in zip(one, two, strict=True)]),
            over("two over apart, photos/s", [b.rate / a.rate for a, b in zip(apart, two, strict=True)]),
            over(
                "two over one, by the core time of all", [2 * a.total / b.total for a, b in zip(one, two, strict=True)]
            ),
            over(
                "two over one, by the core time of the replicas alone",
                [2 * a.replicas / b.replicas for a, b in zip(one, two, strict=True)],
            ),
        ]
    )


def main() -> None:
    arguments = _arguments()
    cores, around = arguments.cores, frozenset(arguments.around)
    siblings = Path(f"/sys/devices/system/cpu/cpu{cores[0]}/topology/thread_siblings_list")
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        photos = make_photos(arguments.corpus, find_data(arguments.data), folder)
        streams = start(cores, around, folder, held)
        cases = ["one", "apart", "two"]
        rounds: list[dict[str, Visit]] = []
        for number in range(-1, arguments.rounds):  # the first warms up
            seconds = arguments.seconds if number >= 0 else min(3.0, arguments.seconds)
            turns = cases[number % 3 :] + cases[: number % 3]
            found = {case: visit(streams(case, number), photos, arguments.clients, seconds) for case in turns}
            foreign = max(each.foreign for each in found.values())
            if number >= 0:
                state = "" if foreign <= MOST_FOREIGN else f", others took {foreign:.0%} of the cores"
                rates = ", ".join(f"{case} {found[case].rate:.1f}" for case in cases)
                print(f"round {number + 1} of {arguments.rounds}: {rates} photos/s{state}", flush=True)
                rounds.append(found)
    counted = [each for each in rounds if max(found.foreign for found in each.values()) <= MOST_FOREIGN]
    if not counted:
        print("\nNo round had the machine to itself: these figures are not to be quoted.")
    visits = {case: [each[case] for each in counted or rounds] for case in cases}
    place = f"cores {sorted(around)}" if around else "the replicas' cores"
    print(f"\n{time.strftime('%Y-%m-%d')}, {cpu_name()}, replicas on cores {cores}, clients and Envoy on {place}")
    if siblings.exists() and str(cores[1]) in siblings.read_text().replace("-", ",").strip().split(","):
        print(f"cores {cores} are threads of one physical core")
    print(
        f"{len(counted)} of {len(rounds)} rounds count, {arguments.seconds:g} s, {arguments.clients} clients a replica"
    )
    print(f"photos: {arguments.corpus}\n\n{table(visits)}\n\n{ratios(visits)}")


def _arguments() -> argparse.Namespace:
    there = sorted(os.sched_getaffinity(0))

    def numbers(text: str) -> list[int]:
        found = [int(number) for number in text.split(",")]
        if not set(found) <= set(there):
            raise argparse.ArgumentTypeError(f"this process may use the cores {there}")
        return found

    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__.partition("\n")[0])
    parser.add_argument("--cores", type=numbers, default=there[:2], help="of the replicas, two")
    parser.add_argument("--around", type=numbers, default=[], help="of clients and Envoys; default: the replicas'")
    parser.add_argument("--clients", type=int, default=24, help="that ask each replica without pause")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--corpus", choices=["small", "imagenet"], default="small", help="what clients send")
    parser.add_argument("--data", type=Path, help="folder with resnet50-imagenet and imagenet-sample")
    arguments = parser.parse_args()
    if len(set(arguments.cores)) != 2:
        parser.error("two replicas need two cores")
    return arguments


if __name__ == "__main__":
    main()
