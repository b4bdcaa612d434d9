"""The container's conditions with a real process: user 10001, no home, a read-only root, a /tmp of 16 MB."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tessera.models.registry import BUNDLED
from tests import imagefiles
from tests.servers import READY, REPOSITORY

USER = 10001
CACHE = "/mnt"

# The capability to read stands for an interpreter and a repository that only their owner may look at; none to write.
AS_IN_A_CONTAINER = f"""set -e
mount --bind "$VOLUME" {CACHE}
mount -o remount,bind,ro /
mount -t tmpfs -o size=16m,mode=1777 tmpfs /tmp
exec setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs --inh-caps=-all,+dac_read_search \
    --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search "$@"
"""


def can_unshare() -> bool:
    command = ["unshare", "--mount", "--propagation", "private", "mount", "-o", "remount,bind,ro", "/"]
    tools = all(shutil.which(tool) for tool in ("unshare", "setpriv", "mount", "bash"))
    return tools and subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_unshare(), reason="needs root, and mount namespaces")


@pytest.fixture(scope="module")
def volume() -> Iterator[Path]:
    """A folder outside of /tmp, which the server sees as its cache; it may write nowhere else."""
    place = REPOSITORY / "build"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        (Path(folder) / "cache").mkdir()
        os.chown(Path(folder) / "cache", USER, USER)
        # A model that has to be built, and is larger than /tmp.
        shutil.copytree(BUNDLED, Path(folder) / "models" / "mine")
        description = Path(folder) / "models" / "mine" / "model.toml"
        description.write_text(description.read_text().replace("resnet50-imagenette", "mine"), encoding="utf-8")
        yield Path(folder)


@pytest.mark.effect_of("model_name")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mine", {"TESSERA_FRONTENDS": "0", "TESSERA_MODEL_PATH": "mine"}),
        ("photos", {"TESSERA_FRONTENDS": "1", "TESSERA_MODEL_NAME": "photos"}),
    ],
)
def test_a_mounted_model_is_served(volume: Path, name: str, settings: dict[str, str]) -> None:
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", AS_IN_A_CONTAINER, "bash"]
    with (
        (volume / "log").open("w") as log,
        subprocess.Popen(
            [*command, sys.executable, "-m", "tessera.app.cli", "serve", "--port", "0"],
            cwd=REPOSITORY,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(REPOSITORY),
                "PYTHONDONTWRITEBYTECODE": "1",
                "VOLUME": str(volume / "cache"),
                "TESSERA_CACHE_DIR": CACHE,
                "TESSERA_MODELS": str(volume / "models"),
                **settings,
            },
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            ready = READY.match(line)
            assert ready is not None, (volume / "log").read_text()
            for variant in ("baseline", "optimised"):
                headers = {"X-Model-Variant": variant}
                answer = httpx.post(f"{ready[1]}/v1/classify", content=imagefiles.jpeg(), headers=headers, timeout=120)
                assert answer.status_code == 200
                assert (answer.json()["model"], answer.json()["variant"]) == (name, variant)
            assert httpx.get(f"{ready[1]}/v2/models/{name}/ready", timeout=120).status_code == 200
            assert f'model="{name}"' in httpx.get(f"{ready[1]}/metrics", timeout=120).text
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0, (volume / "log").read_text()
        finally:
            server.kill()
    written = [path for path in (volume / "cache").rglob("*") if path.name == "optimised.onnx"]
    assert [path.stat().st_uid for path in written] == [USER]
