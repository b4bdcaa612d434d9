"""docs/operating.md and the settings are the same, defaults included; and so are the error codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tessera.app import errors
from tessera.app.errors import RequestError
from tessera.app.settings import Settings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
SETTING = re.compile(r"^\| `([a-z_]+)` \| (?:`([^`]*)`)? ?\|", re.MULTILINE)
ERROR = re.compile(r"^\| (\d{3}) \| `([a-z_]+)` \|", re.MULTILINE)


def leaves(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for child in kind.__subclasses__():
        yield child
        yield from leaves(child)


def test_every_setting_is_documented_with_its_default() -> None:
    documented = dict(SETTING.findall(DOCUMENT.read_text()))
    defaults = {name: "" if f.default is None else str(f.default) for name, f in Settings.model_fields.items()}
    assert documented == defaults


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = {(int(status), code) for status, code in ERROR.findall(DOCUMENT.read_text())}
    assert documented == {(kind.status, kind.code) for kind in leaves(RequestError)}


def test_every_error_code_is_used_once() -> None:
    kinds = list(leaves(RequestError))
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_the_error_tree_in_the_docstring_is_the_tree_in_the_code() -> None:

    drawn = set(re.findall(r"── (\w+Error) +(\d{3}) (\w+)", errors.__doc__ or ""))
    assert drawn == {(kind.__name__, str(kind.status), kind.code) for kind in leaves(RequestError)}
