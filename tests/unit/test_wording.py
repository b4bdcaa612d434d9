"""Numbers as people say them."""

from __future__ import annotations

import ast
import re

import pytest

from tessera.wording import counted
from tests.servers import REPOSITORY

# What is counted in messages; a unit after a number that is never one, such as "ms", is none of these.
PLURAL = re.compile(
    r" (threads|photos|labels|classes|lines|inputs|outputs|channels|dimensions|nodes|scales|groups|tensors|"
    r"interleaved rounds|rows|elements|BYTES elements|entries|scans)\b"
)


def test_one_is_not_many() -> None:
    assert [counted(number, "thread") for number in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]
    assert [counted(number, "photo", form=",") for number in (1, 9469)] == ["1 photo", "9,469 photos"]
    assert [counted(number, "class", "classes") for number in (1, 10)] == ["1 class", "10 classes"]


@pytest.mark.parametrize(
    "folder", ["app/commands", "app/imaging", "app/oip", "app/protocol", "app/scheduling", "models"]
)
def test_messages_count_with_the_helper(folder: str) -> None:
    bare = []
    for file in (REPOSITORY / folder).rglob("*.py"):
        for text in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(text, ast.JoinedStr):
                for number, noun in zip(text.values, text.values[1:], strict=False):
                    after = noun.value if isinstance(noun, ast.Constant) else ""
                    if isinstance(number, ast.FormattedValue) and PLURAL.match(str(after)):
                        bare.append(f"{file.relative_to(REPOSITORY)}:{text.lineno}: {after}")
    assert bare == []
