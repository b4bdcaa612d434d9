"""GET /v1/profile: taken once while the service is idle, kept for later starts, and never in anybody's way."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import jsonschema_rs
import pytest

from tessera.app.figures import background
from tessera.app.figures.background import IdleProfile
from tessera.app.settings import Settings
from tests import imagefiles
from tests.servers import NEVER, REPOSITORY, ServerProcess

SCHEMA = json.loads((REPOSITORY / "docs" / "schemas" / "profile.schema.json").read_text())


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + NEVER
    while not path.is_file():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.1)


def test_an_idle_service_takes_it_once_and_the_next_has_it_at_once(small_model: Path, tmp_path: Path) -> None:
    settings = {"model_path": small_model, "cache_dir": tmp_path / "cache", "frontends": 1}
    with ServerProcess(**settings) as server, server.client() as client:
        early = client.get("/v1/profile")
        assert (early.status_code, early.json()["code"]) == (404, "not_found")
        assert client.post("/v1/classify", content=imagefiles.jpeg()).status_code == 200
        deadline = time.monotonic() + NEVER
        while (answer := client.get("/v1/profile")).status_code == 404:
            assert time.monotonic() < deadline, "it was never taken"
            time.sleep(0.5)
    assert answer.status_code == 200
    jsonschema_rs.validate(SCHEMA, answer.json())
    assert list(answer.json()["layers"]) == ["baseline", "optimised"]
    with ServerProcess(**settings) as server, server.client() as client:
        assert client.get("/v1/profile").content == answer.content


def test_the_first_batch_ends_it_and_it_begins_anew(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_IDLE", 0.1)
    ended: list[str | None] = []
    asked = 0

    class Watched(IdleProfile):
        async def _try(self) -> str | None:
            ended.append(await super()._try())
            return ended[-1]

    def begun() -> int:
        nonlocal asked
        asked += 1
        return min(asked, 8)  # so long, each look sees another batch

    target = tmp_path / "profile.json"
    settings = Settings(model_path=small_model, cache_dir=tmp_path / "cache")
    asyncio.run(Watched(settings, target, begun).take())
    assert ended[-1] == ""
    assert target.is_file()
    assert set(ended[:-1]) <= {None}


def test_it_gives_way_within_a_look(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_IDLE", 0.1)
    begun = 0
    target = tmp_path / "profile.json"
    profile = IdleProfile(Settings(model_path=small_model, cache_dir=tmp_path), target, lambda: begun)

    async def run() -> None:
        nonlocal begun
        trying = asyncio.create_task(profile._try())
        await asyncio.sleep(0)  # it has looked at how many began
        begun = 1
        assert await trying is None
        assert not target.is_file()

    asyncio.run(run())


def test_what_goes_wrong_is_logged_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "_IDLE", 0.1)
    settings = Settings(model_path=tmp_path / "nowhere", cache_dir=tmp_path)
    asyncio.run(IdleProfile(settings, tmp_path / "profile.json", lambda: 0).take())
    assert "nowhere" in caplog.text
    assert not (tmp_path / "profile.json").exists()
