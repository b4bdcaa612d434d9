"""Downloads against a real server that misbehaves: the right file arrives, or none does and the message says why."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tessera.engine.errors import ModelError
from tessera.models.importing.catalogue import CatalogueEntry
from tessera.models.importing.download import Patience, download
from tests.unit.models.fileserver import FileServer, Served, files

__all__ = ["files"]

DATA = bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def entry(files: FileServer) -> CatalogueEntry:
    return CatalogueEntry("model", "", "model.onnx", len(DATA), SHA256, (f"{files.url}/a", f"{files.url}/b"))


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refusal(entry: CatalogueEntry, folder: Path, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        download(entry, folder, **options)  # type: ignore[arg-type]
    assert "model.onnx" not in leftovers(folder)
    return str(caught.value)


def test_a_file_arrives(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    files.files["/a"] = Served(DATA)
    reports: list[tuple[str, float]] = []
    path = download(entry, tmp_path, progress=lambda stage, fraction: reports.append((stage, fraction)))
    assert path.read_bytes() == DATA
    assert leftovers(tmp_path) == {"model.onnx"}
    fractions = [fraction for _, fraction in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert "127.0.0.1" in reports[0][0]
    files.files.clear()
    assert download(entry, tmp_path) == path  # no request is needed for what is there
    assert len(files.requests) == 1


def test_the_first_digits_of_a_hash_are_checked(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    files.files["/a"] = Served(DATA)
    assert "SHA-256" in refusal(replace(entry, sha256="0" * 8), tmp_path)
    assert download(replace(entry, sha256=SHA256[:8]), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_breaks_off_is_continued(
    files: FileServer, entry: CatalogueEntry, tmp_path: Path, ranges: bool
) -> None:
    files.files["/a"] = Served(DATA, breaks=[30_000, 20_000], ranges=ranges)
    assert download(entry, tmp_path).read_bytes() == DATA
    continued = [wanted for _, wanted in files.requests if wanted]
    assert continued == (["bytes=30000-", "bytes=50000-"] if ranges else ["bytes=30000-", "bytes=20000-"])


def test_a_later_call_continues_at_another_mirror(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    files.files["/a"] = Served(DATA, breaks=[50_000, 0, 0, 0])
    refusal(entry, tmp_path)
    assert leftovers(tmp_path) == {"model.onnx.part"}
    files.files["/b"] = Served(DATA)
    files.files["/a"] = Served(status=503)
    assert download(entry, tmp_path).read_bytes() == DATA
    assert files.requests[-1] == ("/b", "bytes=50000-")


@pytest.mark.parametrize("older", [b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 5)])
def test_wrong_older_bytes_do_not_last(files: FileServer, entry: CatalogueEntry, tmp_path: Path, older: bytes) -> None:
    (tmp_path / "model.onnx.part").write_bytes(older)
    files.files["/a"] = Served(DATA)
    assert download(entry, tmp_path).read_bytes() == DATA


def test_a_damaged_file_of_that_name_is_replaced(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\0" * len(DATA))
    files.files["/a"] = Served(DATA)
    assert download(entry, tmp_path).read_bytes() == DATA


def test_a_server_that_refuses_to_continue_is_asked_anew(
    files: FileServer, entry: CatalogueEntry, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx.part").write_bytes(DATA[:100])
    files.files["/a"] = Served(DATA, headers={"Content-Range": "bytes 5-9/10"})
    files.files["/b"] = Served(DATA[:50])
    refusal(entry, tmp_path)
    files.files["/b"] = Served(DATA)
    assert download(entry, tmp_path).read_bytes() == DATA


WRONG = {
    "another file": (Served(b"y" * len(DATA)), "SHA-256"),
    "a shorter file": (Served(DATA[:-1]), "instead of"),
    "a page of a portal": (Served(b"<html>log in</html>"), "instead of"),
    "a longer file, length unsaid": (Served(b"z" + DATA, length=False), "more than"),
    "a shorter file, length unsaid": (Served(DATA[:-1], length=False), "ended early|refuses to continue"),
    "not there": (Served(status=404), "answers 404"),
    "broken": (Served(status=500), "answers 500"),
    "compressed": (Served(DATA, headers={"Content-Encoding": "gzip"}), "compressed"),
    "nothing": (Served(DATA, breaks=[0, 0, 0, 0]), "broke off|ended early"),
    "another scheme": (Served(status=302, location="file:///etc/passwd"), "neither http nor https"),
    "ever onwards": (Served(status=302, location="/a"), "redirects"),
    "a redirect to nowhere": (Served(status=302, location="http://[::"), "broke off|not a usable|no connection"),
}


@pytest.mark.parametrize(("served", "message"), WRONG.values(), ids=WRONG)
def test_the_next_mirror_is_tried(
    files: FileServer, entry: CatalogueEntry, tmp_path: Path, served: Served, message: str
) -> None:
    files.files["/a"] = replace(served, breaks=list(served.breaks))
    files.files["/b"] = Served(DATA)
    assert download(entry, tmp_path).read_bytes() == DATA
    (tmp_path / "model.onnx").unlink()
    files.files["/a"] = replace(served, breaks=list(served.breaks))
    del files.files["/b"]
    with pytest.raises(ModelError, match=message):
        download(entry, tmp_path)
    assert "model.onnx" not in leftovers(tmp_path)


def test_redirects_are_followed_and_keep_the_range(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    (tmp_path / "model.onnx.part").write_bytes(DATA[:100])
    files.files["/a"] = Served(status=302, location="/c?signed=1")
    files.files["/c?signed=1"] = Served(DATA)
    assert download(entry, tmp_path).read_bytes() == DATA
    assert files.requests == [("/a", "bytes=100-"), ("/c?signed=1", "bytes=100-")]


def test_given_mirrors_come_first(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    files.files["/a"] = files.files["/mine/model.onnx"] = Served(DATA)
    assert download(entry, tmp_path, mirrors=["nonsense", f"{files.url}/mine/"]).read_bytes() == DATA
    assert files.requests == [("/mine/model.onnx", "")]


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
    entry = CatalogueEntry("model", "", "model.onnx", len(DATA), SHA256, (url,))
    message = refusal(entry, tmp_path)
    assert "no connection" in message
    assert f"put it at {tmp_path / 'model.onnx'}" in message
    assert "--mirror" in message
    (tmp_path / "model.onnx").write_bytes(DATA)
    assert download(entry, tmp_path).read_bytes() == DATA


def test_silent_and_slow_servers_are_given_up(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    files.files["/a"] = Served(DATA, pause=1.0)
    files.files["/b"] = Served(DATA)
    assert download(entry, tmp_path, patience=Patience(silence=0.2)).read_bytes() == DATA
    (tmp_path / "model.onnx").unlink()
    files.files["/a"] = Served(DATA, pause=0.05)
    slow = Patience(silence=5, window=0.2, rate=1_000_000)
    del files.files["/b"]
    assert "too slow" in refusal(entry, tmp_path, patience=slow)


def test_a_full_disk_is_told_and_leaves_nothing(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    files.files["/a"] = Served(DATA)
    # The device that is always full: a write to it fails as on a full disk.
    (tmp_path / "model.onnx.part").symlink_to("/dev/full")
    assert "disk is full" in refusal(entry, tmp_path)
    assert leftovers(tmp_path) == set()


def test_a_file_larger_than_the_disk_is_not_begun(files: FileServer, entry: CatalogueEntry, tmp_path: Path) -> None:
    files.files["/a"] = Served(DATA)
    assert "disk is full" in refusal(replace(entry, bytes=1 << 60), tmp_path)
    assert files.requests == []
