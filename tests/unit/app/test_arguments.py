"""The command line: what it takes, what it says of a mistake, and that it says so before anything is loaded."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tessera.app.arguments.commands import SHELLS, build_parser
from tessera.app.arguments.parser import Parser
from tessera.app.arguments.settings import GROUPS, SWITCHES
from tessera.app.commands.completion import script
from tessera.app.settings import Settings
from tessera.engine.quantize import Gate
from tessera.models.ascend.convert import GEARS
from tessera.models.formats.foreign import MODEL_SUFFIXES
from tessera.models.quantise import MOST_PHOTOS
from tests.servers import REPOSITORY

HEAVY = {"pydantic", "numpy", "onnx", "onnxruntime", "rich", "fastapi", "uvicorn", "httpx", "PIL", "tessera.engine"}


def commands(parser: Parser) -> Iterator[Parser]:
    """The parsers that end a command line."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield parser
    for action in nested:
        for command in action.choices.values():
            yield from commands(command)


def test_every_setting_but_secrets_has_its_flag_in_one_group() -> None:
    flags = [name for group in GROUPS.values() for name in group]
    assert len(flags) == len(set(flags))
    assert set(flags) == {name for name, field in Settings.model_fields.items() if field.annotation != SecretStr | None}
    assert set(SWITCHES) == {name for name, field in Settings.model_fields.items() if field.annotation is bool}


def test_every_command_has_a_module_that_runs_it() -> None:
    found = {command.get_default("module") for command in commands(build_parser())}
    for module in found:
        assert callable(importlib.import_module(module).run)
    assert len(found) == 18


@pytest.mark.parametrize(
    "case",
    [
        ("serv", "invalid choice: 'serv'", "did you mean serve?"),
        ("models lst", "tessera models: argument ACTION", "did you mean list?"),
        ("serve --prot 80", "tessera serve: unrecognized arguments: --prot", "did you mean --port?"),
        ("profile --bacth 8", "unrecognized arguments: --bacth 8", "did you mean --batch?"),
        ("serve --no-pag", "did you mean --no-page?"),
        ("models quantise --method mes", "did you mean mse?"),
        ("models add net.onnx --size big", "argument --size"),
        ("bench --rounds 0", "must be at least 1"),
        ("classify", "one of the arguments PHOTOS --sample is required"),
        ("classify --sample photo.jpg", "not allowed with argument --sample"),
    ],
    ids=lambda case: case[0],
)
def test_a_wrong_call_is_told_in_its_first_line(case: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    line, *words = case
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(line.split())
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert [word for word in words if word not in first] == []
    assert second.endswith("--help` lists what there is.")


def test_a_wrong_call_is_told_before_anything_is_loaded() -> None:
    code = (
        "import sys; from tessera.app.cli import main\n"
        "try: main(['models', 'quantise', '--methd', 'x'])\n"
        "except SystemExit as ended: print(ended.code, *sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    status, *modules = told.stdout.split()
    assert status == "2"
    assert HEAVY & set(modules) == set()


@pytest.mark.parametrize(
    ("words", "page"),
    [
        (["--page"], True),
        (["--no-page"], False),
        (["--page", "true"], True),
        (["--page", "off"], False),
        (["--page=False"], False),
        (["--page", "--no-page"], False),
        (["--page", "true", "--port", "1"], True),
    ],
    ids=str,
)
def test_a_switch_needs_no_value_and_may_have_one(words: list[str], page: bool) -> None:
    arguments = build_parser().parse_args(["serve", *words, "net.onnx"])
    assert arguments.page is page
    assert arguments.what == Path("net.onnx")


def test_help_names_the_values_that_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit):
            build_parser().parse_args([*words, "--help"])
        return " ".join(capsys.readouterr().out.split())

    quantise = shown("models", "quantise")
    assert f"gate (default {Gate().sqnr:g} dB)" in quantise
    assert f"same first class (default {Gate().agreement})" in quantise
    assert f"and at most, {MOST_PHOTOS})" in quantise
    assert f"({','.join(map(str, GEARS))})" in shown("models", "convert")
    assert f"({', '.join(MODEL_SUFFIXES)})" in shown("models")
    serve = shown("serve")
    for name, field in Settings.model_fields.items():
        if name != "admin_token":
            assert f"[TESSERA_{name.upper()}]" in serve
        if name not in (*SWITCHES, "admin_token") and field.default is not None:
            assert f"(default {field.default})" in serve or name == "split_salt"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("serve --max-b", "--max-batch --max-body-bytes"),
        ("serve --backend a", "ascend auto"),
        ("models qu", "quantise"),
        ("models add --interpolation bi", "bicubic bilinear"),
        ("models add mod", "model.onnx"),
    ],
)
def test_bash_completes(typed: str, offered: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "tessera.bash").write_text(script(build_parser(), "bash"))
    press = f"COMP_WORDS=(tessera {typed}); COMP_CWORD={len(typed.split())}; _shtab_tessera"
    program = f'. ./tessera.bash; {press}; echo "${{COMPREPLY[@]}}"'
    ended = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(ended.stdout.split()) == offered.split(), ended.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_its_script(shell: str) -> None:
    told = script(build_parser(), shell)
    assert all(word in told for word in ("quantise", "max-batch", "no-page"))
