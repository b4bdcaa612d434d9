"""`tessera serve WHAT`: a file that another tool wrote answers a photo after one command."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests import imagefiles
from tests.servers import ServerProcess, tessera
from tests.unit.models.tiny import tiny_model
from tests.waiting import until

TOKEN = "a-token-that-nobody-guesses"


def predictions(client: httpx.Client) -> object:
    answer = client.post("/v1/classify", content=imagefiles.jpeg())
    assert answer.status_code == 200
    assert answer.json()["model"] == "net"
    return answer.json()["results"][0]["predictions"]


def test_a_bare_file_answers_a_photo_starts_quickly_again_and_is_reloaded(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(tiny_model().SerializeToString())
    settings = {"cache_dir": tmp_path / "cache", "threads": 1, "admin": True, "admin_token": TOKEN}
    for frontends in (0, 1):
        with ServerProcess(str(file), frontends=frontends, **settings) as server, server.client() as client:
            before = predictions(client)
            until(lambda server=server: any("the model name=net" in line for line in server.log))
            log = "\n".join(server.log)
            assert 'description="size, mean, std: as the file says; resize, interpolation: ImageNet\'s standard"' in log
            assert f"path={file}" in log
            assert ("importing net.onnx" in log) == (frontends == 0)
            if frontends:
                file.write_bytes(tiny_model(seed=1).SerializeToString())
                assert predictions(client) == before
                admin = {"Authorization": f"Bearer {TOKEN}"}
                assert client.post("/v1/admin/variants/optimised/reload", headers=admin).status_code == 200
                assert predictions(client) != before
            assert server.stop() == 0


def test_a_model_that_is_named_twice_is_refused() -> None:
    refused = tessera("serve", "resnet50-imagenette", "--model-path", "resnet50-imagenette")
    assert refused.returncode == 2
    assert "named twice" in refused.stderr
