"""The container's conditions with a real process: a model that has to be built, and is larger than /tmp."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tessera.models.registry import BUNDLED
from tests import imagefiles
from tests.containers import USER, Container, needs_containers
from tests.servers import REPOSITORY
from tests.waiting import NEVER

pytestmark = needs_containers


@pytest.fixture(scope="module")
def volume() -> Iterator[Path]:
    place = REPOSITORY / "build"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        mine = Path(folder) / "models" / "mine"
        shutil.copytree(BUNDLED, mine)
        description = mine / "model.toml"
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
    with Container(volume, "serve", "--port", "0", TESSERA_MODELS="/mnt/models", **settings) as server:
        url = server.wait_until_ready()
        for variant in ("baseline", "optimised"):
            headers = {"X-Model-Variant": variant}
            answer = httpx.post(f"{url}/v1/classify", content=imagefiles.jpeg(), headers=headers, timeout=NEVER)
            assert answer.status_code == 200
            assert (answer.json()["model"], answer.json()["variant"]) == (name, variant)
        assert httpx.get(f"{url}/v2/models/{name}/ready", timeout=NEVER).status_code == 200
        assert f'model="{name}"' in httpx.get(f"{url}/metrics", timeout=NEVER).text
        server.stop()
    written = [path for path in (volume / "cache").rglob("*") if path.name == "optimised.onnx"]
    assert [path.stat().st_uid for path in written] == [USER]
