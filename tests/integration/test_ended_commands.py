"""Commands that are ended by a signal: nothing is lost, nothing is left half-written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tessera.app.cli import main
from tessera.app.signals import deferred_end, orderly_end
from tests.servers import REPOSITORY, environment
from tests.unit.models.tiny import LABELS, tiny_folder

# Fewer than a block of the state file, so that nothing is kept unless the end of the command keeps it.
PHOTOS = 500


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tessera.app.cli", "models", *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def wait_for(process: subprocess.Popen[str], stage: str) -> None:
    """Read its progress until a stage begins."""
    assert process.stderr is not None
    for line in process.stderr:
        if stage in line:
            return
    raise AssertionError(f"it ended before {stage!r}")


def end(process: subprocess.Popen[str], sign: signal.Signals) -> tuple[int, str]:
    process.send_signal(sign)
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    return process.returncode, errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "tiny")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of one large photo, many times: some milliseconds of decoding each."""
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "list.txt").write_text(f"photo.png {LABELS.index('cat')}\n" * PHOTOS, encoding="utf-8")
    return tmp_path / "list.txt"


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=lambda value: str(value)
)
def test_an_evaluation_that_is_stopped_keeps_every_photo_that_it_counted(
    folder: Path, listed: Path, tmp_path: Path, sign: signal.Signals, code: int
) -> None:
    state = tmp_path / "state"
    flags = ("--list", listed, "--model-path", folder, "--cache-dir", tmp_path / "cache", "--resume", state)
    with start("evaluate", tmp_path, *flags, env=environment()) as process:
        wait_for(process, "evaluating")
        ended, errors = end(process, sign)
    assert ended == code, errors
    kept = [json.loads(line) for line in state.read_text(encoding="utf-8").splitlines()[1:]]
    photos = sum(block["photos"] for block in kept)
    assert 0 < photos < PHOTOS
    for block in kept:
        assert {tally["photos"] for tally in block["tallies"].values()} == {block["photos"]}
    assert f"the results of {photos} of {PHOTOS} photos are kept in {state}" in errors


def test_what_is_ignored_stays_ignored(folder: Path, listed: Path, tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does

    flags = ("--list", listed, "--model-path", folder, "--cache-dir", tmp_path / "cache")
    with start("evaluate", tmp_path, *flags, env=environment(), preexec_fn=ignore) as process:
        wait_for(process, "evaluating")
        process.send_signal(signal.SIGHUP)
        assert end(process, signal.SIGTERM)[0] == 143


@pytest.mark.parametrize("stage", ["writing baseline.onnx", "quantising"])
def test_a_build_that_is_ended_leaves_nothing_half_written(tmp_path: Path, stage: str) -> None:
    cache = tmp_path / "cache"
    with start("build", "--cache-dir", cache, env=environment()) as process:
        wait_for(process, stage)
        assert end(process, signal.SIGTERM)[0] == 143
    assert not list(cache.rglob("*.partial"))
    assert not list(cache.rglob("build.json"))


def test_a_quantisation_that_is_ended_leaves_nothing(folder: Path, listed: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "photos").mkdir()
    for number in range(80):
        (tmp_path / "photos" / f"{number}.png").symlink_to(tmp_path / "photo.png")
    flags = ("--model-path", folder, "--cache-dir", tmp_path / "cache")
    with start("quantise", tmp_path / "photos", *flags, env=environment(TMPDIR=str(tmp_path / "tmp"))) as process:
        wait_for(process, "observing activations")
        assert end(process, signal.SIGTERM)[0] == 143
    assert not list((tmp_path / "tmp").iterdir())
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_quantisation_needs_no_temporary_files(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    flags = ("--model-path", folder, "--cache-dir", tmp_path / "cache", "--min-sqnr", "1", "--min-agreement", "0")
    assert main(["models", "quantise", str(photos), *map(str, flags)]) == 0


@pytest.mark.parametrize(("action", "largest"), [("build", 4096), ("quantise", 4096), ("quantise", 65536)])
def test_a_file_that_cannot_be_written_is_told(
    folder: Path, photos: Path, tmp_path: Path, action: str, largest: int
) -> None:
    code = f"""import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))
from tessera.app.cli import main; raise SystemExit(main())"""
    arguments = [*([photos] if action == "quantise" else []), "--model-path", folder, "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [sys.executable, "-c", code, "models", action, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "tessera: Cannot " in done.stderr or "The model cannot be opened: Cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_signal_is_acted_on_where_the_account_is_whole() -> None:
    done = []
    with pytest.raises(SystemExit) as ended, orderly_end(), deferred_end() as act:  # noqa: PT012  # signals interrupt lines
        act()
        signal.raise_signal(signal.SIGTERM)
        done.append("the line after")
        act()
        done.append("never")
    assert (done, ended.value.code) == (["the line after"], 143)


def test_a_second_signal_does_not_wait() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_end():  # noqa: PT012  # as above
        for number in range(3):
            signal.raise_signal(signal.SIGINT)
            done.append(number)
    assert done == [0]


def test_what_nobody_acted_on_is_acted_on_at_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_end():  # noqa: PT012  # as above
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"]
