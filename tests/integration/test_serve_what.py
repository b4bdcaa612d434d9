"""`tessera serve WHAT`: a file that another tool wrote answers a photo after one command."""

from __future__ import annotations

from pathlib import Path

from tests import imagefiles
from tests.servers import ServerProcess, tessera
from tests.unit.models.tiny import tiny_model


def test_a_bare_file_answers_a_photo_and_starts_quickly_again(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(tiny_model().SerializeToString())
    for frontends in (0, 1):
        flags = (str(file), "--cache-dir", str(tmp_path / "cache"))
        with ServerProcess(*flags, frontends=frontends, threads=1) as server, server.client() as client:
            answer = client.post("/v1/classify", content=imagefiles.jpeg())
            assert answer.status_code == 200
            assert answer.json()["model"] == "net"
            assert server.stop() == 0
        log = "\n".join(server.log)
        assert 'description="size, mean, std: as the file says; resize, interpolation: ImageNet\'s standard"' in log
        assert f"path={file}" in log
        assert ("importing net.onnx" in log) == (frontends == 0)


def test_a_file_that_has_changed_is_loaded_by_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(tiny_model().SerializeToString())
    admin = {"Authorization": "Bearer a-token-that-nobody-guesses"}
    settings = {"admin": True, "admin_token": "a-token-that-nobody-guesses", "cache_dir": tmp_path / "cache"}
    with ServerProcess(str(file), threads=1, **settings) as server, server.client() as client:

        def answer() -> object:
            return client.post("/v1/classify", content=imagefiles.jpeg()).json()["results"][0]["predictions"]

        before = answer()
        file.write_bytes(tiny_model(seed=1).SerializeToString())
        assert answer() == before
        assert client.post("/v1/admin/variants/optimised/reload", headers=admin).status_code == 200
        assert answer() != before
        assert server.stop() == 0


def test_a_model_that_is_named_twice_is_refused() -> None:
    refused = tessera("serve", "resnet50-imagenette", "--model-path", "resnet50-imagenette")
    assert refused.returncode == 2
    assert "named twice" in refused.stderr
