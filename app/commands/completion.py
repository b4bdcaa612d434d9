"""What makes a shell complete commands, flags and their values."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from tessera.app.arguments.commands import build_parser
from tessera.app.arguments.parser import Parser
from tessera.app.settings import Settings


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the script."""
    print(script(build_parser(), arguments.shell))
    return 0


def script(parser: Parser, shell: str) -> str:
    """What `shell` evaluates to complete the parser's command."""
    for command in _parsers(parser):
        command.describe()
        for action in command._actions:
            field = Settings.model_fields.get(action.dest)
            if action.type is Path or (field is not None and field.annotation == Path | None):
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab looks for it there
    text: str = shtab.complete(parser, shell)
    return text


def _parsers(parser: Parser) -> Iterator[Parser]:
    """A parser, and those of its commands and their actions."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _parsers(command)
