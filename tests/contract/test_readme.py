"""What README.md and docs/architecture.md tell a reader to type, open or expect is so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tessera.app.arguments.commands import COMMANDS
from tessera.app.settings import Settings
from tests import imagefiles
from tests.servers import REPOSITORY, ServerProcess, environment, tessera
from tests.shared_data import SHARED_DATA, requires_shared_data

README = (REPOSITORY / "README.md").read_text()
EXPLAINING = (REPOSITORY / "docs" / "explaining.md").read_text()
ARCHITECTURE = "".join(
    page.read_text() for page in (REPOSITORY / "docs/architecture.md", *(REPOSITORY / "docs/architecture").iterdir())
)
# Names in the architecture's text are short where their folder is plain from the context.
FOLDERS = (
    ".",
    "app",
    "app/api",
    "app/oip/wire",
    "engine",
    "engine/graph",
    "engine/backends/cpu",
    "engine/backends/ascend",
    "engine/csrc",
    "engine/csrc/kernels",
    "docs",
)

requires_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Example(NamedTuple):
    """A command of the README, or of docs/explaining.md, and the answer printed below it, if any."""

    command: str
    answer: dict[str, Any] | None


def examples() -> list[Example]:
    blocks = re.findall(r"^```(sh|json)\n(.*?)^```", README + EXPLAINING, re.MULTILINE | re.DOTALL)
    found: list[Example] = []
    for kind, text in blocks:
        if kind == "sh":
            found += [Example(line, None) for line in text.splitlines()]
        else:
            found[-1] = Example(found[-1].command, json.loads(text))
    return found


def photo(folder: Path) -> Path:
    """The README's photo where it is present, else a drawing, as photo.jpg in `folder`."""
    named = re.search(r"`(imagenette/\S+\.JPEG)`", README)
    assert named is not None
    original = SHARED_DATA / named[1]
    target = folder / "photo.jpg"
    target.write_bytes(original.read_bytes() if original.is_file() else imagefiles.jpeg())
    return target


def run_example(command: str, server: ServerProcess, folder: Path) -> dict[str, Any]:
    photo(folder)
    assert "http://127.0.0.1:8000" in command
    run = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8000", server.url).replace("curl ", "curl -sS ", 1)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert isinstance(answer, dict)
    return answer


def shape(value: Any) -> Any:
    """Keys and types, without values."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return type(value)


@requires_curl
@pytest.mark.parametrize("example", examples(), ids=lambda example: example.command)
def test_each_curl_command_is_answered_in_the_printed_shape(
    example: Example, server: ServerProcess, tmp_path: Path
) -> None:
    answer = run_example(example.command, server, tmp_path)
    if example.answer is not None:
        assert shape(answer) == shape(example.answer)
    else:
        assert "error" not in answer, answer


@requires_curl
@requires_shared_data
@pytest.mark.parametrize(
    "example", [example for example in examples() if example.answer], ids=lambda example: example.command
)
def test_the_printed_answers_are_real(example: Example, server: ServerProcess, tmp_path: Path) -> None:
    answer = run_example(example.command, server, tmp_path)
    assert example.answer is not None
    for key in ("model", "variant", "error", "code"):
        assert answer.get(key) == example.answer.get(key)
    for got, printed in zip(answer.get("results", []), example.answer.get("results", []), strict=True):
        for mine, theirs in zip(got["predictions"], printed["predictions"], strict=True):
            likelihoods = mine.pop("probability"), theirs["probability"]
            maps = mine.pop("heat_map", {"values": []}), theirs.get("heat_map", {"values": []})
            assert mine == {key: value for key, value in theirs.items() if key not in ("probability", "heat_map")}
            assert maps[0]["values"] == pytest.approx(maps[1]["values"], abs=1e-3)
            # ONNX Runtime's kernels differ from CPU to CPU in the last digits.
            assert likelihoods[0] == pytest.approx(likelihoods[1], abs=1e-4)


def test_the_first_example_prints_what_is_shown() -> None:
    found = re.search(r"^    \$ \.venv/bin/tessera (classify --sample.*)\n((?:    \S.*\n)+)", README, re.MULTILINE)
    assert found is not None
    told = tessera(*found[1].split())
    assert told.returncode == 0, told.stderr
    for line, shown in zip(told.stdout.splitlines(), found[2].splitlines(), strict=True):
        assert line.split("%")[0].rstrip("0123456789.") == shown.strip().split("%")[0].rstrip("0123456789.")
        numbers = [[float(number) for number in re.findall(r"[\d.]+(?=%)", text)] for text in (line, shown)]
        # Of CPUs, some run in bf16 what others run in whole numbers.
        assert numbers[0] == pytest.approx(numbers[1], abs=3)


def test_the_two_commands_are_there_and_ci_runs_the_second() -> None:
    assert re.findall(r"^    (make \w+)", README, re.MULTILINE) == ["make serve", "make test"]
    assert (REPOSITORY / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b[^.]*?[`#]", README)) <= targets


@pytest.mark.parametrize("line", re.findall(r"\.venv/bin/tessera ([^`]+)`", README))
def test_every_tessera_command_takes_its_flags(line: str) -> None:
    words = line.split()
    flags = [word for word in words if word.startswith("--")]
    command = [] if words[0].startswith("--") else [words[0]]
    assert set(command) <= set(COMMANDS)
    described = tessera(*command, "--help")
    assert described.returncode == 0
    assert set(flags) <= set(re.findall(r"--[\w-]+", described.stdout))


@pytest.mark.parametrize("line", re.findall(r"\.venv/bin/locust ([^`]+)`", README))
def test_every_locust_command_runs(line: str, server: ServerProcess) -> None:
    words = line.split()
    words[words.index("-t") + 1] = "2s"
    run = subprocess.run(
        [sys.executable, "-m", "locust", *words, "--host", server.url],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_environment_variable_is_a_setting() -> None:
    settings = {f"TESSERA_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bTESSERA_[A-Z_]+", README)) <= settings


def test_every_link_and_file_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    files = re.findall(r"-f ((?!file=)\S+/\S+)", README)
    assert len(links) >= 4
    assert len(files) >= 2
    assert [path for path in links + files if not (REPOSITORY / path).exists()] == []


def test_the_measured_table_has_its_place() -> None:
    assert re.search(r"^<!-- bench -->$.*^<!-- /bench -->$", README, re.MULTILINE | re.DOTALL)


def architecture_paths() -> list[str]:
    """Whatever looks like a file or a folder in the architecture's code spans; patterns with <> or * are left out."""
    spans = re.findall(r"`([\w./-]+)`", ARCHITECTURE)
    known = re.compile(r".*(/|\.(py|pyi|c|h|def|md|toml|txt))")
    return sorted({span for span in spans if known.fullmatch(span) and span not in ("model.toml", ".inc", "Python.h")})


def test_the_architecture_names_enough_files_to_be_a_guide() -> None:
    assert len(architecture_paths()) > 40


@pytest.mark.parametrize("path", architecture_paths())
def test_what_the_architecture_names_exists(path: str) -> None:
    assert any((REPOSITORY / folder / path).exists() for folder in FOLDERS), path


def test_the_architecture_names_every_room() -> None:
    rooms = {path.name for path in (REPOSITORY / "app").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert {room for room in rooms - {"commands"} if f"{room}/" not in ARCHITECTURE} == set()
