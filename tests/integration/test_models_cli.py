"""`tessera models pull` and `add` with the real command, a local server in place of the internet, then served."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tessera import engine
from tessera.models.importing.catalogue import CATALOGUE, find_entry
from tessera.models.package import read_package
from tessera.models.registry import BUNDLED
from tessera.models.source import float_model
from tests import imagefiles
from tests.servers import REPOSITORY, ServerProcess, environment, tessera
from tests.unit.models.fileserver import FileServer, Served, files
from tests.unit.models.tiny import tiny_model
from tests.waiting import until

__all__ = ["files"]

NAME = "resnet50-v1-12"
SIZE = 8_000_000


@pytest.fixture(scope="module")
def graph(small_model: Path) -> bytes:
    """A model as an ONNX file of another origin, long enough to be interrupted on its way."""
    model = float_model(read_package(small_model))
    del model.metadata_props[:]
    model.doc_string = "x" * SIZE
    return model.SerializeToString()


@pytest.fixture
def labels(small_model: Path, tmp_path: Path) -> str:
    return str(shutil.copy(small_model / "labels.txt", tmp_path / "names.txt"))


@pytest.fixture
def catalogue(graph: bytes, files: FileServer, tmp_path: Path) -> Path:
    """The catalogue with one entry changed: its bytes and addresses are those of the local server."""
    entry = find_entry(NAME)
    text = CATALOGUE.read_text(encoding="utf-8")
    text = text.replace(entry.sha256, hashlib.sha256(graph).hexdigest()).replace(str(entry.bytes), str(len(graph)))
    text = text.replace(entry.urls[0], f"{files.url}/first").replace(entry.urls[1], f"{files.url}/second")
    path = tmp_path / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    return path


def start(catalogue: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tessera.app.cli", "models", "pull", "--catalogue", str(catalogue), *arguments],
        cwd=REPOSITORY,
        env=environment(NO_PROXY="127.0.0.1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pull(catalogue: Path, *arguments: str) -> tuple[int, str, str]:
    with start(catalogue, *arguments) as process:
        output, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def test_a_pulled_model_is_served(
    catalogue: Path, files: FileServer, graph: bytes, labels: str, tmp_path: Path
) -> None:
    cache, library = str(tmp_path / "cache"), tmp_path / "library"
    files.files["/first"] = Served(b"<html>", status=503)
    files.files["/second"] = Served(graph, breaks=[SIZE // 4])
    code, output, errors = pull(catalogue, NAME, "--labels", labels, "--into", str(library), "--cache-dir", cache)
    assert code == 0, errors
    assert f"--model-path {library / NAME}" in output
    assert "downloading" in errors
    assert files.requests[-1] == ("/second", f"bytes={SIZE // 4}-")
    assert not list((tmp_path / "cache" / "downloads" / NAME).glob("*.onnx*"))
    listed = tessera("models", "list", "--models", str(library), "--cache-dir", cache)
    assert NAME in listed.stdout
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(imagefiles.jpeg())
    shown = tessera("classify", str(photo), "--model-path", str(library / NAME), "--cache-dir", cache)
    assert shown.returncode == 0, shown.stderr
    with ServerProcess(model_path=library / NAME, cache_dir=cache) as server, server.client() as client:
        answer = client.post("/v1/classify", content=photo.read_bytes()).json()
        assert server.stop() == 0
    assert answer["model"] == NAME
    (top,) = re.findall(rf"{re.escape(str(photo))}: (.+?) \d", shown.stdout)
    assert answer["results"][0]["predictions"][0]["label"] == top


def test_without_a_network_nothing_is_left_and_the_file_may_be_brought(
    catalogue: Path, files: FileServer, graph: bytes, tmp_path: Path
) -> None:
    place = ("--into", str(tmp_path / "library"), "--cache-dir", str(tmp_path / "cache"))
    code, _, errors = pull(catalogue, NAME, *place)
    assert code == 1
    assert "answers 404" in errors
    assert not (tmp_path / "library").exists()
    (where,) = re.findall(r"put it at (\S+),", errors)
    Path(where).write_bytes(graph)
    code, _, errors = pull(catalogue, NAME, *place)
    assert code == 0, errors
    assert "class 0" in errors
    assert "labels.txt" in errors
    requests = len(files.requests)
    assert pull(catalogue, NAME, *place)[0] == 0  # it is there already
    assert len(files.requests) == requests


def test_pulls_at_once_fetch_once(catalogue: Path, files: FileServer, graph: bytes, tmp_path: Path) -> None:
    files.files["/first"] = Served(graph)
    place = ("--into", str(tmp_path / "library"), "--cache-dir", str(tmp_path / "cache"))
    processes = [start(catalogue, NAME, *place) for _ in range(3)]
    for process in processes:
        with process:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    assert len(files.requests) == 1
    assert [path.name for path in (tmp_path / "library").iterdir()] == [NAME]


def test_a_killed_pull_is_continued(catalogue: Path, files: FileServer, graph: bytes, tmp_path: Path) -> None:
    files.files["/first"] = Served(graph, pause=0.001)
    place = ("--into", str(tmp_path / "library"), "--cache-dir", str(tmp_path / "cache"))
    part = tmp_path / "cache" / "downloads" / NAME / f"{NAME}.onnx.part"
    with start(catalogue, NAME, *place) as process:
        until(lambda: process.poll() is not None or (part.exists() and part.stat().st_size > SIZE // 8))
        process.kill()
        process.communicate()
    assert not (tmp_path / "library").exists()
    files.files["/first"] = Served(graph)
    assert pull(catalogue, NAME, *place)[0] == 0
    assert files.requests[-1][1].startswith("bytes=")


def test_mirror_and_unknown_name(catalogue: Path, files: FileServer, graph: bytes, tmp_path: Path) -> None:
    files.files[f"/mine/{NAME}.onnx"] = Served(graph)
    place = ("--into", str(tmp_path / "library"), "--cache-dir", str(tmp_path / "cache"))
    assert pull(catalogue, NAME, "--mirror", f"{files.url}/mine/", *place)[0] == 0
    unknown = tessera("models", "pull", "alexnet", *place)
    assert unknown.returncode == 1
    assert "torchvision-resnet50-v2" in unknown.stderr
    assert all(name in tessera("models", "pull", "--help").stdout for name in (NAME, "timm-resnet50-a1"))


def test_an_added_model_is_listed_and_classifies(tmp_path: Path) -> None:
    cache, labels = str(tmp_path / "cache"), str(BUNDLED / "labels.txt")
    weights = tmp_path / "mine.safetensors"
    weights.symlink_to(BUNDLED / "weights.safetensors")
    added = tessera("models", "add", str(weights), "--labels", labels, "--cache-dir", cache)
    assert added.returncode == 0, added.stderr
    assert added.stderr == ""
    (folder,) = re.findall(r"^mine: (.+)$", added.stdout, re.MULTILINE)
    assert folder in tessera("models", "list", "--cache-dir", cache).stdout
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(imagefiles.jpeg())
    flags = (str(photo), "--variant", "baseline", "--cache-dir", cache)
    mine, bundled = tessera("classify", *flags, "--model-path", folder), tessera("classify", *flags)
    assert mine.returncode == 0, mine.stderr
    assert mine.stdout == bundled.stdout


def test_photos_are_prepared_as_each_model_wants_them(tmp_path: Path) -> None:
    source, library, cache = tmp_path / "tiny.onnx", str(tmp_path / "library"), str(tmp_path / "cache")
    source.write_bytes(tiny_model().SerializeToString())
    flags = ("--resize", "40", "--interpolation", "bicubic")
    added = tessera("models", "add", str(source), "--into", library, *flags)
    assert (added.returncode, added.stderr) == (0, "")
    photo = tmp_path / "photo.png"
    photo.write_bytes(imagefiles.png(300, 200))
    resized = Image.open(photo).convert("RGB").resize((60, 40), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((14, 4, 46, 36)))[np.newaxis]
    with engine.load(source, backend="onnxruntime") as session:
        logits = session.run(pixels)[0].astype(np.float64)
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    with ServerProcess(model_path=Path(library) / "tiny", cache_dir=cache) as server, server.client() as client:
        for variant in ("baseline", "optimised"):
            answer = client.post(
                "/v1/classify", content=photo.read_bytes(), headers={"X-Model-Variant": variant}
            ).json()
            for prediction in answer["results"][0]["predictions"]:
                assert prediction["probability"] == pytest.approx(wanted[prediction["index"]], abs=1e-4)
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("gone.onnx",), 1, "There is no file gone.onnx"),
        (("README.md",), 1, "no kind that can be imported"),
        (("README.md", "--mean", "1,2"), 2, "--mean"),
        (("README.md", "--size", "big"), 2, "--size"),
    ],
)
def test_what_cannot_be_added_is_told(flags: tuple[str, ...], code: int, words: str, tmp_path: Path) -> None:
    refused = tessera("models", "add", *flags, "--into", str(tmp_path / "library"))
    assert (refused.returncode, words in refused.stderr) == (code, True), refused.stderr
    assert "Traceback" not in refused.stderr
