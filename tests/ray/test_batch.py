"""The batch job of deploy/ray beside `tessera classify`, over the same photos."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import imagefiles
from tests.ray.cluster import DEPLOY, Cluster
from tests.servers import REPOSITORY
from tests.waiting import NEVER, until

pytest.importorskip("ray", reason="`make ray` installs it, in an environment of its own")

COUNT = 600  # several portions


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder with a photo that cannot be read, a tar file, a damaged one, and a photo by name."""
    root = tmp_path_factory.mktemp("photos")
    (root / "folder").mkdir()
    for number in range(COUNT):
        (root / "folder" / f"{number:04}.jpg").write_bytes(imagefiles.jpeg(40 + number % 17, 50))
    (root / "folder" / "0300.jpg").write_bytes(b"\xff\xd8\xff no photo")
    for name in ("shard.tar", "damaged.tar"):
        with tarfile.open(root / name, "w") as tar:
            for number in range(20):
                tar.add(root / "folder" / f"{number:04}.jpg", f"{number}.jpg")
    (root / "damaged.tar").write_bytes((root / "damaged.tar").read_bytes()[:5000])
    return [root / "folder", root / "shard.tar", root / "damaged.tar", root / "folder" / "0000.jpg"]


@pytest.fixture(scope="module")
def settings(small_model: Path) -> dict[str, str]:
    return {"TESSERA_MODEL_PATH": str(small_model), "TESSERA_BACKEND": "cpu"}


class Result(NamedTuple):
    """A file; which photos could not be read, and why; how many there were, and how many of these."""

    file: bytes
    told: set[str]
    counts: tuple[str, str]


class Job(NamedTuple):
    """A running job."""

    process: subprocess.Popen[str]
    output: Path

    def result(self) -> Result:
        _, errors = self.process.communicate(timeout=NEVER)
        assert self.process.returncode == 1, errors
        told = {line for line in errors.splitlines() if line.startswith("tessera: /") and str(self.output) not in line}
        (counts,) = re.findall(r"([\d,]+) photos\b.*; ([\d,]+) could not be read", errors)
        return Result(self.output.read_bytes(), told, counts)


def start(cluster: Cluster, output: Path, sources: list[Path], settings: dict[str, str], *command: str) -> Job:
    """Start a job with any of both programs."""
    whole = [sys.executable, *command, *map(str, sources), "--output", str(output), "--top-k", "2"]
    environment = {**cluster.environment, **settings}
    return Job(subprocess.Popen(whole, env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True), output)


CLASSIFY = ("-m", "tessera.app.cli", "classify")
BATCH = (str(DEPLOY / "batch.py"), "--cpus", "1", "--actors", "2")


@pytest.fixture(scope="module")
def one(
    cluster: Cluster, settings: dict[str, str], sources: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Result:
    """What a single process makes of the photos."""
    return start(cluster, tmp_path_factory.mktemp("one") / "one.jsonl", sources, settings, *CLASSIFY).result()


def test_the_file_is_that_of_one_process(
    cluster: Cluster, settings: dict[str, str], sources: list[Path], tmp_path: Path, one: Result
) -> None:
    assert start(cluster, tmp_path / "ray.jsonl", sources, settings, *BATCH).result() == one
    assert any("0300.jpg: The " in line for line in one.told)


def test_an_actor_that_is_killed_costs_nothing(
    cluster: Cluster, settings: dict[str, str], sources: list[Path], tmp_path: Path, one: Result
) -> None:
    job = start(cluster, tmp_path / "ray.jsonl", sources, settings, *BATCH)
    until(lambda: len(cluster.actors("Classifier")) == 2)
    os.kill(cluster.actors("Classifier")[0], signal.SIGKILL)
    assert job.result() == one
