"""The parser of every command: says what is wrong first, and what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

_WRONG_WORD = re.compile(r"unrecognized arguments: ([^\s=]+)|.*invalid choice: '([^']*)'")
# What pydantic, which reads the same settings from the environment, takes for a truth value.
_TRUE, _FALSE = ("1", "on", "t", "true", "y", "yes"), ("0", "off", "f", "false", "n", "no")
_TRUTH = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)


class Parser(argparse.ArgumentParser):
    """argparse's, with errors of two lines, and texts that are only read when they are shown."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._later: list[Callable[[], None]] = []

    def describe_later(self, describe: Callable[[], None]) -> None:
        """Have texts filled in by `describe` before they are shown."""
        self._later.append(describe)

    def describe(self) -> None:
        """Fill in all texts."""
        while self._later:
            self._later.pop()()

    def format_help(self) -> str:
        """All that --help prints."""
        self.describe()
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unknown arguments are told by the parser of the action, which knows its flags."""
        words = self._switched(sys.argv[1:] if args is None else args)
        parsed, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(_with_values(unknown, words))}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """End with code 2."""
        words = [
            *self._option_string_actions,
            *(str(word) for action in self._actions for word in action.choices or ()),
        ]
        wrong = _WRONG_WORD.match(message)
        near = difflib.get_close_matches(wrong[1] or wrong[2], words, 1) if wrong is not None else []
        meant = f"; did you mean {near[0]}?" if near else ""
        self.exit(2, f"{self.prog}: {message}{meant}\n`{self.prog} --help` lists what there is.\n")

    def _switched(self, words: Sequence[str]) -> list[str]:
        """The arguments with `--page true` and `--page=false` written as `--page` and `--no-page`."""
        switches = {
            option: action
            for option, action in self._option_string_actions.items()
            if isinstance(action, argparse.BooleanOptionalAction)
        }
        written: list[str] = []
        for word in words:
            flag, equals, value = word.partition("=")
            if flag in switches and equals and value.lower() in _TRUTH:
                written.append(switches[flag].option_strings[0 if _TRUTH[value.lower()] else 1])
            elif written and written[-1] in switches and word.lower() in _TRUTH:
                written[-1] = switches[written[-1]].option_strings[0 if _TRUTH[word.lower()] else 1]
            else:
                written.append(word)
        return written


def _with_values(unknown: Sequence[str], words: Sequence[str]) -> list[str]:
    """Unknown flags, each with the word behind it, meant for it even where it was taken for something else."""
    told: list[str] = []
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word in unknown and word not in told:
            told.append(word)
            if word.startswith("--") and "=" not in word and not following.startswith("-") and following not in unknown:
                told.append(following)
    return told
