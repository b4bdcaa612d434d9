"""Settings: one source, three ways to set them, and clear words for bad values."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from tessera.app.arguments.parser import Parser
from tessera.app.arguments.settings import add_settings_flags
from tessera.app.commands.flags import settings_from, unknown_variables
from tessera.app.settings import Settings

TOKEN = "a-token-that-nobody-guesses"

EXAMPLES = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "model_path": ("some/model", Path("some/model")),
    "size": ("224x320", "224x320"),
    "models": ("some/models", Path("some/models")),
    "model_name": ("photos", "photos"),
    "cache_dir": ("some/cache", Path("some/cache")),
    "backend": ("ascend", "ascend"),
    "default_variant": ("baseline", "baseline"),
    "frontends": ("2", 2),
    "grpc_port": ("8001", 8001),
    "split": ("optimised=90,baseline=10", "optimised=90,baseline=10"),
    "split_salt": ("spring", "spring"),
    "shadow_share": ("0.25", 0.25),
    "guard_agreement": ("0.98", 0.98),
    "guard_window": ("700", 700),
    "guard_recovery": ("automatic", "automatic"),
    "threads": ("3", 3),
    "decode_threads": ("5", 5),
    "max_batch": ("4", 4),
    "max_queue_images": ("200", 200),
    "max_images_per_request": ("7", 7),
    "max_body_bytes": ("1000", 1000),
    "max_pixels": ("5000", 5000),
    "decode_scale": ("false", False),
    "page": ("false", False),
    "cors_origins": ("https://example.org, http://localhost:3000", "https://example.org, http://localhost:3000"),
    "request_timeout_ms": ("250", 250),
    "max_upload_bytes": ("99000000", 99000000),
    "max_connections": ("12", 12),
    "client_timeout_seconds": ("2.5", 2.5),
    "keep_alive_seconds": ("5", 5),
    "rate_limit": ("0.5", 0.5),
    "rate_burst": ("3", 3),
    "trusted_proxies": ("10.0.0.0/8,::1", "10.0.0.0/8,::1"),
    "admin": ("true", True),
    "admin_host": ("0.0.0.0", "0.0.0.0"),
    "admin_token_file": ("some/token", Path("some/token")),
    "drain_seconds": ("1.5", 1.5),
    "lame_duck_seconds": ("2.5", 2.5),
    "stuck_seconds": ("9", 9.0),
    "otlp_endpoint": ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
    "log_format": ("json", "json"),
    "log_level": ("warning", "warning"),
}


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TESSERA_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PORT", raising=False)


def parse(*flags: str) -> Settings:
    parser = Parser(allow_abbrev=False)
    add_settings_flags(parser)
    return settings_from(parser.parse_args(flags))


def test_every_setting_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(Settings.model_fields) - {"config", "admin_token"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_flag_wins_over_environment_wins_over_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, value = EXAMPLES[name]
    flag = f"--{name.replace('_', '-')}"
    if name == "admin":
        monkeypatch.setenv("TESSERA_ADMIN_TOKEN", TOKEN)
    assert getattr(parse(flag, text), name) == value
    file = tmp_path / "tessera.toml"
    file.write_text(f"{name} = {text if isinstance(value, (int, float)) else json.dumps(text)}\n")
    monkeypatch.setenv("TESSERA_CONFIG", str(file))
    assert getattr(parse(), name) == value
    file.write_text(f"{name} = 'not a value of anything but text'\n")
    monkeypatch.setenv(f"TESSERA_{name.upper()}", text)
    assert getattr(parse(), name) == value
    monkeypatch.setenv(f"TESSERA_{name.upper()}", "not a value of anything but text")
    assert getattr(parse(flag, text), name) == value


def test_the_file_can_be_named_by_flag_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, batch in (("a.toml", 3), ("b.toml", 5)):
        (tmp_path / name).write_text(f"max_batch = {batch}\nport = 9000\n")
    monkeypatch.setenv("TESSERA_CONFIG", str(tmp_path / "a.toml"))
    assert parse("--config", str(tmp_path / "b.toml")).max_batch == 5
    assert parse("--port", "1").max_batch == 3


def test_the_platforms_port_comes_after_all_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT", "8080")
    assert parse().port == 8080
    file = tmp_path / "tessera.toml"
    file.write_text("port = 9000\n")
    assert parse("--config", str(file)).port == 9000
    monkeypatch.setenv("TESSERA_PORT", "7000")
    assert parse("--config", str(file)).port == 7000
    assert parse("--port", "6000").port == 6000


def test_an_empty_port_of_the_platform_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    assert parse().port == 8000


def test_a_bad_port_of_the_platform_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(SystemExit) as ended:
        parse()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("tessera: PORT: Input should be a valid integer")


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tessera.toml"
    file.write_bytes(b"\xef\xbb\xbfmax_batch = 3\r\n")
    assert parse("--config", str(file)).max_batch == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_bach = 3\nfoo = 1\n", ["'foo'", "'max_bach' (did you mean 'max_batch'?)"]),
        ("[server]\nport = 3\n", ["'server'"]),
        ("config = 'other.toml'\n", ["'config'"]),
        ("max_batch = \n", ["not valid TOML", "line 1"]),
        ("max_batch = 99\n", ["max_batch in the configuration file: Input should be less than or equal to 16"]),
        (None, ["cannot be read", "No such file"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    text: str | None, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tessera.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        parse("--config", str(file))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert [word for word in words if word not in told] == []


def test_the_token_comes_from_environment_or_file_never_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        parse("--admin-token", TOKEN)
    monkeypatch.setenv("TESSERA_ADMIN_TOKEN", TOKEN)
    settings = parse("--admin", "true")
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings) + str(settings) + settings.model_dump_json()


def test_admin_without_a_token_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--admin", "true")
    assert "TESSERA_ADMIN_TOKEN or admin_token_file" in capsys.readouterr().err


def test_variables_that_are_no_settings_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_ISA", "avx2")
    monkeypatch.setenv("TESSERA_MAX_BATCH", "2")
    monkeypatch.setenv("TESSERA_MAX_BACH", "2")
    assert unknown_variables() == ["TESSERA_MAX_BACH"]


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
        {"model_name": "two words"},
        {"model_name": "a/b"},
        {"max_images_per_request": 200},
        {"split": "optimised"},
        {"split": "optimised=0"},
        {"shadow_share": 1.5},
        {"guard_agreement": 0.98, "shadow_share": 0},
        {"guard_agreement": 1},
        {"guard_agreement": 0.99, "guard_window": 600, "guard_recovery": "automatic"},
        {"guard_recovery": "never"},
        {"max_body_bytes": 300_000_000},
        {"rate_limit": 0},
        {"client_timeout_seconds": 0},
        {"cors_origins": "example.org"},
        {"cors_origins": "https://example.org/page"},
        {"log_format": "xml"},
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
