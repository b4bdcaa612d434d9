"""This tree's engine against another tree's, such as that of the commit before: both running, in turns.

    git worktree add ../before COMMIT && cd ../before && python3 -m venv .venv && .venv/bin/pip install -e . && cd -
    .venv/bin/python -m benchmarks.trees ../before model.onnx
    TESSERA_ISA=avx2 .venv/bin/python -m benchmarks.trees ../before model.onnx --precision fp32
    .venv/bin/python -m benchmarks.trees . now.onnx --before other.onnx      # two files, one tree

Ratios are times before over times now. Where pages lie differs between processes and can be worth some percent, so
both are started anew several times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

from rich import box
from rich.console import Console
from rich.table import Table

from tessera.engine.machine import cpu_name

_TREE = Path(__file__).resolve().parent.parent
_SHAPES = ((1, 1), (16, 1), (1, 2), (16, 2))  # images, threads
_STARTS = 3
_IMAGES_A_TURN = 16

# Takes a line with a number of runs, says the median in milliseconds; first, a digest of its answers.
_WORKER = """
import hashlib, statistics, sys, time
import numpy as np
from tessera import engine

path, images, threads, precision = sys.argv[1:]
options = {"precision": precision} if precision else {}
session = engine.load(path, threads=int(threads), **options)
shape = (int(images), *session.describe().inputs[0].shape[1:])
inputs = [np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in range(3)]
print(hashlib.sha256(session.run(inputs[0]).tobytes()).hexdigest(), flush=True)
for line in sys.stdin:
    times = []
    for number in range(int(line)):
        started = time.perf_counter()
        session.run(inputs[number % 3])
        times.append(time.perf_counter() - started)
    print(1000 * statistics.median(times), flush=True)
"""


def main() -> None:
    """Prints a row for each batch size and thread count."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trees", description=__doc__.partition("\n")[0])
    parser.add_argument("tree", type=Path, help="the other tree, with an environment in .venv")
    parser.add_argument("file", type=Path, help="the ONNX file that both run")
    parser.add_argument("--before", type=Path, metavar="FILE", help="what the other tree runs instead")
    parser.add_argument("--precision", default="", help="of both, as for engine.load")
    parser.add_argument("--rounds", type=int, default=9, help=f"in each of {_STARTS} starts (default 9)")
    arguments = parser.parse_args()
    if not (arguments.tree / ".venv/bin/python").exists():
        parser.error(f"{arguments.tree} has no environment in .venv; the module's first lines say how to make one")
    files = {"before": arguments.before or arguments.file, "now": arguments.file}
    trees = {"before": arguments.tree.resolve(), "now": _TREE}
    level = os.environ.get("TESSERA_ISA", "all that the CPU has")
    rounds = _STARTS * arguments.rounds
    table = Table(box=box.MARKDOWN, title=f"{cpu_name()}, instructions: {level}, {rounds} rounds", title_justify="left")
    for heading in ("images", "threads", "before, ms", "now, ms", "ratio", "quartiles", "answers"):
        table.add_column(heading, justify="right")
    for images, threads in _SHAPES:
        command = [str(images), str(threads), arguments.precision]
        commands = {name: [str(files[name].resolve()), *command] for name in files}
        table.add_row(str(images), str(threads), *_compare(trees, commands, images, arguments.rounds))
    Console(width=120).print(table)


def _compare(trees: dict[str, Path], commands: dict[str, list[str]], images: int, rounds: int) -> list[str]:
    """The cells of a row behind its name."""
    taken: dict[str, list[float]] = {name: [] for name in trees}
    equal = True
    for _ in range(_STARTS):
        workers = {name: _Worker(trees[name], commands[name]) for name in trees}
        equal = equal and len({worker.answers for worker in workers.values()}) == 1
        for number in range(rounds + 1):
            for name in list(workers) if number % 2 else list(workers)[::-1]:
                milliseconds = workers[name].run(max(2, _IMAGES_A_TURN // images))
                if number > 0:  # the first one warms up
                    taken[name].append(milliseconds)
        for worker in workers.values():
            worker.close()
    ratios = [before / now for before, now in zip(taken["before"], taken["now"], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    times = [f"{median(taken[name]):.2f}" for name in ("before", "now")]
    return [*times, f"{median(ratios):.3f}x", f"{low:.3f} to {high:.3f}", "equal" if equal else "differ"]


class _Worker:
    """A process with a tree's own environment and one model.

    Args:
        tree: With an environment in .venv.
        arguments: Of the worker's program.

    Attributes:
        answers: A digest of what the model makes of an input that is the same everywhere.
    """

    def __init__(self, tree: Path, arguments: list[str]) -> None:
        # -P: modules come from the tree's environment, not from the folder that this runs in.
        command = [str(tree / ".venv/bin/python"), "-P", "-c", _WORKER, *arguments]
        self._tree = tree
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answers = self._line()

    def run(self, runs: int) -> float:
        """The median of some runs in milliseconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{runs}\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"The engine of {self._tree} ended with {self._process.wait()}; what it said stands above.")
        return line


if __name__ == "__main__":
    main()
