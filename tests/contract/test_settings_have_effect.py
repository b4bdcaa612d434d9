"""Every setting has a test that fails when the setting does nothing: one marked `@pytest.mark.effect_of("name")`."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tessera.app.settings import Settings

TESTS = Path(__file__).resolve().parents[1]


@cache
def marked() -> dict[str, list[str]]:
    """Setting -> the tests that are marked with it."""
    found: dict[str, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
                continue
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.effect_of":
                    for name in mark.args:
                        found.setdefault(ast.literal_eval(name), []).append(function.name)
    return found


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_setting_has_a_test_of_its_effect(name: str) -> None:
    assert name in marked()


def test_no_test_is_about_a_setting_that_does_not_exist() -> None:
    assert marked().keys() <= Settings.model_fields.keys()
