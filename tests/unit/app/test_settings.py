"""Settings: one source, three ways to set them, and clear words for bad values."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.commands.flags import add_settings_flags, settings_from
from app.settings import Settings

EXAMPLES = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "model_path": ("some/model", Path("some/model")),
    "models": ("some/models", Path("some/models")),
    "cache_dir": ("some/cache", Path("some/cache")),
    "backend": ("ascend", "ascend"),
    "default_variant": ("baseline", "baseline"),
    "threads": ("3", 3),
    "decode_threads": ("5", 5),
    "max_batch": ("4", 4),
    "max_queue_images": ("200", 200),
    "max_images_per_request": ("7", 7),
    "max_body_bytes": ("1000", 1000),
    "max_pixels": ("5000", 5000),
    "request_timeout_ms": ("250", 250),
    "drain_seconds": ("1.5", 1.5),
    "log_level": ("warning", "warning"),
}


def parse(*flags: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_settings_flags(parser)
    return settings_from(parser.parse_args(flags))


def test_every_setting_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(Settings.model_fields)


@pytest.mark.parametrize("name", EXAMPLES)
def test_flag_and_environment_set_the_same_and_the_flag_wins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = EXAMPLES[name]
    flag = f"--{name.replace('_', '-')}"
    assert getattr(parse(flag, text), name) == value
    monkeypatch.setenv(f"TESSERA_{name.upper()}", text)
    assert getattr(parse(), name) == value
    monkeypatch.setenv(f"TESSERA_{name.upper()}", "not a value of anything but text")
    assert getattr(parse(flag, text), name) == value


@pytest.mark.parametrize(
    "bad",
    [
        {"port": 70000},
        {"port": -1},
        {"max_batch": 0},
        {"max_batch": 17},
        {"threads": 0},
        {"max_queue_images": 0},
        {"request_timeout_ms": 0},
        {"drain_seconds": -1},
        {"log_level": "loud"},
        {"default_variant": ""},
        {"max_images_per_request": 200},
        {"no_such_setting": 1},
    ],
)
def test_bad_values_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**bad)


def test_a_bad_flag_is_named_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--max-batch", "99", "--port", "eighty")
    assert ended.value.code == 2
    words = capsys.readouterr().err
    assert "--max-batch (TESSERA_MAX_BATCH): Input should be less than or equal to 16" in words
    assert "--port (TESSERA_PORT)" in words


def test_a_request_that_could_never_be_admitted_is_refused_at_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--max-queue-images", "10")
    assert "max_images_per_request (64) is larger than max_queue_images (10)" in capsys.readouterr().err
