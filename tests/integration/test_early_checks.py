"""What is wrong with a call is told before anything expensive: nothing is built for a call that cannot succeed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tessera.app.cli import main
from tests import imagefiles
from tests.servers import REPOSITORY, environment, tessera
from tests.unit.models.tiny import tiny_folder, tiny_model
from tests.waiting import NEVER


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, ...]:
    return "--model-path", str(tiny_folder(tmp_path / "tiny")), "--cache-dir", str(tmp_path / "cache")


@pytest.fixture
def photo(tmp_path: Path) -> str:
    (tmp_path / "photos" / "0").mkdir(parents=True)
    path = tmp_path / "photos" / "0" / "0.jpg"
    path.write_bytes(imagefiles.jpeg())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.jpg").write_bytes(imagefiles.jpeg()[:300])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "folder.jpg").mkdir()
    return str(path)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("bench", "--images", "typo"), "There is no folder of photos typo"),
        (("bench", "--images", "{0}/empty"), "There are no photos in"),
        (("bench", "--images", "{0}/broken"), "0.jpg cannot be read: The image is truncated"),
        (("profile", "--images", "typo"), "There is no folder of photos typo"),
        (("profile", "--variant", "typo"), "--variant takes one of: baseline, optimised"),
        (("classify", "{0}/photos/0/0.jpg", "--variant", "typo"), "--variant takes one of: baseline, optimised"),
        (("classify", "{0}/photos/0/0.jpg", "--default-variant", "typo"), "--default-variant takes one of"),
        (("classify", "{0}/photos/0/0.jpg", "--top-k", "6"), "from 1 to 5"),
        (("classify", "typo.jpg"), "typo.jpg: No such file"),
        (("classify", "{0}/empty"), "There are no photos in"),
        (("models", "evaluate", "typo"), "There is no folder of photos typo"),
        (("models", "evaluate", "{0}/photos", "--list", "typo"), "Cannot read the list typo"),
        (("models", "evaluate", "{0}/photos", "--wnids", "typo"), "Cannot read the class names typo"),
        (("models", "evaluate", "{0}/photos", "--json", "gone/x.json"), "There is no folder gone"),
        (("models", "evaluate", "{0}/photos", "--resume", "gone/state"), "There is no folder gone"),
        (("models", "evaluate", "{0}/photos", "--resume", "{0}"), "it is a folder"),
        (("models", "evaluate", "{0}/photos", "--resume", "{0}/photos/0/0.jpg"), "is no state of an evaluation"),
        (("models", "quantise", "{0}/photos", "--report", "{0}"), "it is a folder"),
        (("models", "prune", "{0}/photos"), "has one photo"),
        (("models", "prune", "{0}/photos", "--name", "a/b"), "'a/b' cannot be a model's name"),
        (("models", "prune", "{0}/photos", "--into", "{0}/tiny"), "is a model itself"),
        (("models", "prune", "{0}/photos", "--epochs", "2"), "--epochs says how long --fine-tune trains"),
        (("models", "prune", "{0}/photos", "--fine-tune", "{0}/photos"), "Say how much of it is pruned"),
        (("models", "convert", "--target", "Ascend310B1", "--int8", "typo"), "There is no folder of photos typo"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_flag_is_told_before_a_model_is_built(
    command: tuple[str, ...],
    words: str,
    model: tuple[str, ...],
    photo: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*(word.format(tmp_path) for word in command), *model]) == 1
    told = capsys.readouterr().err
    assert words in told
    assert "tessera: checking weights" not in told
    assert not (tmp_path / "cache" / "models").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("bench", "--images", "typo"), "There is no folder of photos typo"),
        (("profile", "--images", "typo"), "There is no folder of photos typo"),
        (("profile", "--variant", "typo"), "--variant takes one of"),
        (("classify", "typo.jpg"), "typo.jpg: No such file"),
        (("classify", "{0}/photos/0/0.jpg", "--variant", "typo"), "--variant takes one of"),
        (("models", "quantise", "typo"), "There is no folder of photos typo"),
        (("models", "prune", "typo"), "There is no folder of photos typo"),
        (("models", "evaluate", "typo"), "There is no folder of photos typo"),
        (("serve", "--port", "0", "--default-variant", "typo"), "The default variant 'typo' does not exist"),
        (("serve", "--port", "0", "--split", "typo=1"), "The split names 'typo'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_flag_is_told_before_a_file_is_imported(
    command: tuple[str, ...], words: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.onnx").write_bytes(tiny_model().SerializeToString())
    flags = ("--model-path", str(tmp_path / "net.onnx"), "--cache-dir", str(tmp_path / "cache"))
    arguments = [*(word.format(tmp_path) for word in command), *flags]
    if command[0] == "serve":  # which ends its process
        ended = tessera(*arguments)
        code, told = ended.returncode, ended.stderr
    else:
        code = main(arguments)
        told = capsys.readouterr().err
    assert (code, words in told) == (1, True), told
    assert not (tmp_path / "cache").exists()


def test_photos_that_are_missing_do_not_hide_those_that_are_there(
    model: tuple[str, ...], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", "typo.jpg", photo, *model]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("tessera: typo.jpg: No such file")
    assert shown.out.startswith(f"{photo}: ")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--labels", "typo"), "Cannot read the labels typo"),
        (("--into", "{0}/tiny"), "is a model itself"),
        (("--into", "{0}/file/deeper"), "is no folder"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("pull", "resnet50-v1-12", "--mirror", "http://127.0.0.1:9/"),
        ("export", "torchvision", "resnet50"),
        ("add", "{0}/tiny.onnx"),
    ],
    ids=lambda command: command[0],
)
def test_a_place_that_cannot_be_used_is_told_before_a_model_is_fetched(
    command: tuple[str, ...], flags: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_folder(tmp_path / "tiny")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "tiny.onnx").write_bytes(tiny_model().SerializeToString())
    arguments = [word.format(tmp_path) for word in (*command, *flags)]
    assert main(["models", *arguments, "--cache-dir", str(tmp_path / "cache")]) == 1
    told = capsys.readouterr().err
    assert words in told
    assert "downloading" not in told


# Root may write everywhere by a capability; without any, it is a user like others.
WITHOUT_CAPABILITIES = """
import ctypes, sys
from tessera.app.cli import main

header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0, ctypes.get_errno()
sys.exit(main())
"""


def test_a_folder_that_is_read_only_is_told_first(model: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    command = ["models", "evaluate", "typo", "--json", str(tmp_path / "closed" / "x.json"), *model]
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_CAPABILITIES, *command],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=NEVER,
        check=False,
    )
    assert ended.returncode == 1
    assert "read-only for this user" in ended.stderr
