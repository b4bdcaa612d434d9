"""`tessera classify` over many photos: where they come from, what is written, and runs that are stopped."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tessera.app.cli import main
from tessera.app.commands.batch.output import journal_of
from tessera.app.commands.batch.running import Unreadable, classify
from tessera.app.commands.batch.sources import Photo, count_photos, find_photos, find_portion, portions
from tessera.app.commands.batch.tally import Tally
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.served.loading import open_session
from tessera.app.settings import Settings
from tessera.models.registry import open_model
from tests import imagefiles
from tests.servers import REPOSITORY, environment
from tests.unit.models.tiny import tiny_folder
from tests.waiting import until

COUNT = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, and 40 photos in two folders of which one cannot be read."""
    root = tmp_path_factory.mktemp("batch")
    tiny_folder(root / "tiny")
    for number in range(COUNT):
        folder = root / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.jpg").write_bytes(imagefiles.jpeg(40 + number, 50))
    (root / "photos" / "b" / "05.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (root / "photos" / "a" / "notes.md").write_text("no photo")
    (root / "photos" / "a" / ".hidden.jpg").write_bytes(b"")
    return root


def model(root: Path) -> tuple[str, ...]:
    return "--model-path", str(root / "tiny"), "--cache-dir", str(root / "cache")


def run(root: Path, *words: object) -> int:
    return main(["classify", *map(str, words), *model(root)])


@pytest.fixture(scope="module")
def whole(root: Path) -> bytes:
    """What one run writes."""
    assert run(root, root / "photos", "--output", root / "whole.jsonl") == 1
    return (root / "whole.jsonl").read_bytes()


def rows(payload: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in payload.splitlines()]


def test_a_folder_gives_a_line_per_photo_and_names_the_bad_one(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, root / "photos", "--output", tmp_path / "x.jsonl", "--top-k", "2") == 1
    shown = capsys.readouterr()
    bad = root / "photos" / "b" / "05.jpg"
    assert f"tessera: {bad}: The " in shown.err
    assert "40 photos, " in shown.err
    assert "1 could not be read" in shown.err
    assert "classifying" not in shown.err, "progress is for terminals"
    assert shown.out == ""
    found = rows((tmp_path / "x.jsonl").read_bytes())
    assert [row["file"] for row in found] == sorted(map(str, (root / "photos").rglob("[0-9]*.jpg")))
    (broken,) = [row for row in found if "error" in row]
    assert broken["file"] == str(bad)
    assert all(len(row["predictions"]) == 2 for row in found if row is not broken)
    assert not (tmp_path / "x.jsonl.partial").exists()


def test_results_are_those_of_single_photos(root: Path, whole: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    row = rows(whole)[3]
    assert run(root, row["file"], "--json") == 0
    (alone,) = json.loads(capsys.readouterr().out)["results"]
    assert alone["filename"] == row["file"]
    assert [entry["index"] for entry in alone["predictions"]] == [entry["index"] for entry in row["predictions"]]
    assert alone["timing"]["batch_size"] == 1


def test_json_of_many_and_of_none_is_one_document(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, root / "photos" / "a", "--json", "--top-k", "1") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [len(result["predictions"]) for result in answer["results"]] == [1] * 20
    assert {result["timing"]["batch_size"] for result in answer["results"]} == {16, 4}
    assert run(root, root / "photos" / "b" / "05.jpg", "--json") == 1
    assert json.loads(capsys.readouterr().out)["results"] == []


def test_every_format_holds_the_same(root: Path, whole: bytes, tmp_path: Path) -> None:
    for form in ("csv", "parquet"):
        assert run(root, root / "photos", "--output", tmp_path / f"x.{form}") == 1
    expected = rows(whole)
    table = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert table == [{"predictions": None, "error": None, **row} for row in expected]
    with (tmp_path / "x.csv").open(newline="") as file:
        for row, line in zip(expected, csv.DictReader(file), strict=True):
            assert (line["file"], line["error"]) == (row["file"], row.get("error", ""))
            for entry in row.get("predictions", ()):
                rank = entry["rank"]
                assert (line[f"index_{rank}"], line[f"label_{rank}"]) == (str(entry["index"]), entry["label"])
                assert float(line[f"probability_{rank}"]) == entry["probability"]


@pytest.fixture(scope="module")
def listed(root: Path, whole: bytes) -> Path:
    """A list of a hundred paths."""
    names = [row["file"] for row in rows(whole)]
    path = root / "photos.txt"
    path.write_text("".join(f"{names[number % COUNT]}\n" for number in range(100)))
    return path


@contextmanager
def begun(root: Path, listed: Path, target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real run that has written three batches and waits for the rest of its list."""
    command = [sys.executable, "-m", "tessera.app.cli", "classify", "-", "--output", str(target), *model(root)]
    journal = journal_of(target)
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"".join(listed.read_bytes().splitlines(keepends=True)[:96]))
        process.stdin.flush()
        until(lambda: journal.is_file() and journal.read_bytes().count(b"\n") >= 4)
        yield process


def killed(root: Path, listed: Path, target: Path) -> bytes:
    """The journal that a run leaves which was killed."""
    with begun(root, listed, target) as process:
        process.kill()
    return journal_of(target).read_bytes()


def test_a_run_that_was_killed_is_gone_on_with(root: Path, listed: Path, tmp_path: Path) -> None:
    """The file is that of one run, wherever the journal was cut."""
    target = tmp_path / "x.jsonl"
    assert run(root, listed, "--output", target) == 1
    once = target.read_bytes()
    target.unlink()
    payload = killed(root, listed, target)
    first, second, *_ = (place for place, byte in enumerate(payload) if byte == ord("\n"))
    for end in (0, first - 1, first + 1, second - 1, len(payload)):
        journal_of(target).write_bytes(payload[:end])
        assert run(root, listed, "--output", target, "--resume") == 1
        assert target.read_bytes() == once
        assert not journal_of(target).exists()


def test_an_unfinished_run_is_neither_lost_nor_mixed(
    root: Path, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.csv"
    payload = killed(root, listed, target)
    for words, message in (
        (("--output", target), "holds a run that has not ended: go on with --resume"),
        (("--output", target, "--resume", "--top-k", "1"), "belongs to another batch: top_k changed since"),
        (("--output", target, "--resume", "--variant", "baseline"), "belongs to another batch: variants changed since"),
    ):
        assert run(root, listed, *words) == 1
        assert message in capsys.readouterr().err
    assert run(root, root / "photos" / "b", "--output", target, "--resume") == 1
    assert (
        f"where it has {root / 'photos' / 'a' / '00.jpg'}, {root / 'photos' / 'b' / '01.jpg'} came"
        in capsys.readouterr().err
    )
    assert journal_of(target).read_bytes() == payload
    assert run(root, listed, "--output", target, "--resume") == 1
    assert run(root, listed, "--output", target, "--resume") == 0, "there is nothing left to do"
    assert "is there already" in capsys.readouterr().err


def test_a_stopped_run_says_how_to_go_on(root: Path, listed: Path, tmp_path: Path) -> None:
    with begun(root, listed, tmp_path / "x.jsonl") as process:
        process.terminate()
        assert process.stderr is not None
        told = process.stderr.read().decode()
        assert process.wait() == 128 + signal.SIGTERM
    # The third batch may have been written, but not counted yet.
    assert re.search(r"stopped; the results of (32|48) photos are kept in", told)
    assert "The same command with --resume goes on from there." in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{0}/photos", "--output", "x.txt"), "end it in .jsonl, .csv, .parquet"),
        (("{0}/photos", "--output", "gone/x.csv"), "There is no folder gone"),
        (("{0}/photos", "--resume"), "name it with --output"),
        (("{0}/tiny",), "There are no photos in"),
        (("{0}/gone.txt",), "gone.txt: No such file"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_first(
    root: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, *(word.format(root) for word in words)) == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert "tessera: checking" not in shown.err


def test_parquet_without_pyarrow_says_what_to_install(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tessera.app.commands.batch.tables.find_spec", lambda name: None)
    assert run(root, root / "photos", "--output", root / "x.parquet") == 1
    assert "pip install 'tessera-inference[parquet]'" in capsys.readouterr().err


# Where photos come from


def names(*sources: Path) -> list[str]:
    return [photo.name for photo in find_photos(sources)]


def shard(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_a_webdataset_gives_its_pictures(tmp_path: Path) -> None:
    tar = shard(tmp_path / "s.tar", a_jpg=b"1", a_cls=b"7", b_PNG=b"22", b_json=b"{}")
    assert [(photo.name, photo.read()) for photo in find_photos([tar])] == [
        (f"{tar}/a.jpg", b"1"),
        (f"{tar}/b.PNG", b"22"),
    ]
    assert count_photos([tar]) == 2


@pytest.mark.parametrize("damage", ["header", "cut", "other"])
def test_a_damaged_tar_file_is_one_bad_photo_behind_the_good_ones(tmp_path: Path, damage: str) -> None:
    tar = shard(tmp_path / "s.tar", a_jpg=b"1" * 600, b_jpg=b"2" * 600)
    payload = bytearray(tar.read_bytes())
    second = 512 + 1024
    if damage == "header":
        payload[second : second + 10] = b"\xff" * 10
    tar.write_bytes({"header": payload, "cut": payload[: second + 700], "other": b"no tar file" * 99}[damage])
    *good, bad = find_photos([tar])
    assert [photo.name for photo in good] == ([] if damage == "other" else [f"{tar}/a.jpg"])
    assert bad.name == str(tar)
    with pytest.raises(OSError, match="The tar file is damaged"):
        bad.read()


def test_a_list_may_have_been_written_anywhere(tmp_path: Path) -> None:
    photo = tmp_path / os.fsdecode(b"caf\xe9 1.jpg")
    photo.write_bytes(b"1")
    (tmp_path / "list.txt").write_bytes(os.fsencode(photo) + b"\r\n\nnul\0.jpg\n" + b"x" * 70_000)
    first, *others = find_photos([tmp_path / "list.txt"])
    assert (first.name, first.read()) == (str(photo), b"1")
    assert len(others) == 3, "a path with a zero byte, and one line too long in two pieces"
    for other in others:
        with pytest.raises(OSError, match=r"null byte|too long|No such file"):
            other.read()


def test_names_that_are_no_text_are_written_as_they_are(
    root: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    photo = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    photo.write_bytes(imagefiles.jpeg())
    for form in ("jsonl", "csv", "parquet"):
        assert run(root, photo, "--output", tmp_path / f"x.{form}") == 0
    assert json.loads((tmp_path / "x.jsonl").read_text())["file"] == str(photo)
    assert os.fsencode(photo) in (tmp_path / "x.csv").read_bytes()
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist()[0]["file"].endswith(r"caf\udce9.jpg")
    assert run(root, photo) == 0
    assert capfdbinary.readouterr().out.startswith(os.fsencode(photo) + b": ")


def test_a_folder_is_read_in_the_order_of_names_and_does_not_wait_for_pipes(root: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("2.jpg", "1.JPEG", "b/0.png", "x.txt"):
        (tmp_path / name).write_bytes(b"1")
    os.mkfifo(tmp_path / "3.jpg")
    (tmp_path / "4.jpg").symlink_to("gone")
    assert names(tmp_path) == [str(tmp_path / name) for name in ("1.JPEG", "2.jpg", "3.jpg", "4.jpg", "b/0.png")]
    problems = []
    for photo in find_photos([tmp_path]):
        try:
            photo.read()
        except OSError as error:
            problems.append(error.strerror or str(error))
    assert problems == ["It is no regular file", "No such file or directory"]
    assert count_photos([tmp_path, root / "photos", tmp_path / "x.txt"]) == 5 + COUNT + 1
    assert count_photos([tmp_path, Path("-")]) is None


# How many are held at once


def test_photos_are_asked_for_as_they_are_needed(root: Path) -> None:
    """A hundred thousand are never listed, nor are more than seven batches between the list and the results."""
    settings = Settings(model_path=root / "tiny", cache_dir=root / "cache")
    opened = open_model(root / "tiny", cache=root / "cache")
    decoder = ImageDecoder(opened.preprocessing, max_pixels=10**6)
    payload, asked = imagefiles.jpeg(40, 40), 0

    def endless() -> Iterator[Photo]:
        nonlocal asked
        while True:
            asked += 1
            yield Photo(f"{asked}", lambda: payload)

    with open_session(opened.variants["optimised"], settings) as session:
        outcomes = classify(endless(), session, decoder, 2)
        for number, batch in enumerate(islice(outcomes, 20), start=1):
            assert len(batch) == 16
            assert asked <= 16 * (number + 6)
        outcomes.close()


def test_the_bar_says_how_fast_and_how_long(root: Path) -> None:
    shown: list[tuple[str, float, str]] = []
    tally = Tally(lambda line: None)
    tally.draw(lambda *said: shown.append(said), [root / "photos"])

    def one_more() -> bool:
        list(tally.watch(iter([[Unreadable("x.jpg", "It is no photo")]])))
        return shown[-1][1] > 0

    until(one_more)  # what there is has been counted
    stage, fraction, detail = shown[-1]
    assert stage == "classifying"
    assert fraction == tally.photos / COUNT
    assert re.fullmatch(rf"{tally.photos} of {COUNT} photos, [\d.]+/s, \d+:\d\d:\d\d left", detail)
    assert str(tally).endswith(f"; {tally.photos} could not be read")


def test_portions_hold_the_same_photos_in_the_same_order(root: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(root / "photos" / "a" / "00.jpg", "00.jpg")
    (tmp_path / "list.txt").write_text(f"{root / 'photos' / 'b' / '01.jpg'}\nmissing.jpg\n")
    sources = [root / "photos", shard, tmp_path / "list.txt"]
    made = list(portions(sources, 16))
    assert [len(portion) for portion in made] == [16, 16, 8, 1, 2]
    found = [photo.name for portion in made for photo in find_portion(portion)]
    assert found == [photo.name for photo in find_photos(sources)]
