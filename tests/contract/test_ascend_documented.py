"""docs/ascend.md against the code: ceilings, error codes, flags, files."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from tessera.app.arguments.commands import build_parser
from tessera.engine.backends.ascend.chips import CHIPS
from tessera.engine.backends.ascend.constants import ADVICE, ERROR_NAMES
from tests.servers import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "ascend.md").read_text()
# Multiply-accumulates of ResNet-50 v1.5 for 224 x 224 and 1000 classes.
RESNET50 = 4.089e9


def test_the_ceilings_are_those_of_the_chips() -> None:
    rows = re.findall(
        r"^\| (310\w+|910\w+) \| (\d+) x (\d+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| (\d+) \|$", DOCUMENT, re.M
    )
    assert len(rows) >= 4
    for name, cores, megahertz, fp16, int8, images_fp16, images_int8 in rows:
        chip = CHIPS[f"Ascend{name}"]
        assert (int(cores), int(megahertz)) == (chip.cores, chip.megahertz)
        for precision, tera, images in (("fp16", fp16, images_fp16), ("int8", int8, images_int8)):
            assert 2e-12 * chip.peak(precision) == pytest.approx(float(tera), abs=0.06)
            assert chip.peak(precision) / RESNET50 == pytest.approx(int(images), rel=1e-3)


def test_the_articles_figure_is_refuted_with_the_right_numbers() -> None:
    peak = CHIPS["Ascend310B1"].peak("fp16")
    floor = 16 * RESNET50 / peak * 1e3
    assert f"{floor:.2f} ms" in DOCUMENT
    assert f"{floor / 2:.2f} ms" in DOCUMENT
    assert f"{16 * 1.850e9 / peak * 1e3:.2f} ms" in DOCUMENT
    assert f"{floor / 18.2:.0%}".replace("%", " %") in DOCUMENT


def test_the_error_codes_are_known_and_none_with_advice_is_missing() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| ([A-Z_, ]+) \|", DOCUMENT, re.M)
    documented = {
        int(code): name
        for codes, names in rows
        for code, name in zip(codes.split(", "), names.split(", "), strict=True)
    }
    for code, name in documented.items():
        assert ERROR_NAMES[code].endswith(name), code
    assert set(ADVICE) - set(documented) <= {507046}


def test_every_flag_of_the_conversion_is_there() -> None:
    parser = build_parser()
    for name in ("models", "convert"):
        (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        parser = commands.choices[name]
    flags = {flag for action in parser._actions for flag in action.option_strings if flag[:2] == "--"}
    section = DOCUMENT[DOCUMENT.index("## Conversion") : DOCUMENT.index("## What to expect")]
    assert set(re.findall(r"^\| `(--[\w-]+)", section, re.M)) == flags - {
        "--help",
        "--model-path",
        "--models",
        "--cache-dir",
    }


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:docs|docker|models|tests)/[\w./-]+)`", DOCUMENT))))
def test_every_file_exists(path: str) -> None:
    assert (REPOSITORY / Path(path)).exists()
