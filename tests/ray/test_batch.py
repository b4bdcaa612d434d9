"""The batch job of deploy/ray beside `tessera classify`, over the same photos."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests import imagefiles
from tests.ray.cluster import DEPLOY, Cluster
from tests.servers import REPOSITORY
from tests.waiting import NEVER

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


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_file_is_that_of_one_process(
    cluster: Cluster, small_model: Path, sources: list[Path], tmp_path: Path, suffix: str
) -> None:
    settings = {"TESSERA_MODEL_PATH": str(small_model), "TESSERA_BACKEND": "cpu"}
    files = {name: tmp_path / f"{name}{suffix}" for name in ("one", "ray")}
    commands = {
        "one": [sys.executable, "-m", "tessera.app.cli", "classify"],
        "ray": [sys.executable, str(DEPLOY / "batch.py"), "--cpus", "1", "--actors", "2"],
    }
    told = {}
    for name, command in commands.items():
        done = subprocess.run(
            [*command, *map(str, sources), "--output", str(files[name]), "--top-k", "2"],
            env={**cluster.environment, **settings},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=NEVER,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        told[name] = {line for line in done.stderr.splitlines() if line.startswith("tessera: ") and ".jpg" in line}
    assert files["ray"].read_bytes() == files["one"].read_bytes()
    assert told["ray"] == told["one"]
    assert len(told["ray"]) >= 1
