"""Flags that mirror the settings one to one. Names and order are here; everything else is read from `Settings`."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from functools import partial
from typing import get_args

from tessera.app.arguments.parser import Parser

# Every setting that has a flag; secrets have none, because they would show in the list of processes.
GROUPS = {
    "model": ("model_path", "size", "models", "model_name", "cache_dir", "backend", "default_variant"),
    "addresses": ("host", "port", "grpc_port", "page", "cors_origins"),
    "processes and threads": ("frontends", "threads", "decode_threads"),
    "batches and queue": ("max_batch", "max_queue_images", "request_timeout_ms"),
    "requests": ("max_images_per_request", "max_body_bytes", "max_upload_bytes", "max_pixels", "decode_scale"),
    "clients": (
        *("max_connections", "client_timeout_seconds", "keep_alive_seconds"),
        *("rate_limit", "rate_burst", "trusted_proxies"),
    ),
    "experiments": ("split", "split_salt", "shadow_share", "guard_agreement", "guard_window", "guard_recovery"),
    "administration": ("admin", "admin_host", "admin_token_file"),
    "health and shutdown": ("stuck_seconds", "drain_seconds", "lame_duck_seconds"),
    "logs, traces, configuration": ("log_level", "log_format", "otlp_endpoint", "config"),
}
SWITCHES = ("page", "decode_scale", "admin")

# Settings that decide where models are kept, which one is meant, and how it runs.
PLACES = ("models", "cache_dir")
MODEL_SETTINGS = ("model_path", *PLACES)
RUN_SETTINGS = (*MODEL_SETTINGS, "size", "backend", "threads")


def add_settings_flags(parser: Parser, names: Collection[str] | None = None) -> None:
    """Add `--max-batch` for setting `max_batch` and so on; None adds every setting.

    A flag that is not given leaves its setting to the environment, the file and the default.
    """
    flags = {}
    for title, members in GROUPS.items():
        wanted = [name for name in members if names is None or name in names]
        group = parser.add_argument_group(title) if wanted else parser
        flags.update({name: _add(group, name) for name in wanted})
    parser.describe_later(partial(_describe, flags))


def _add(group: argparse._ActionsContainer, name: str) -> argparse.Action:
    flag = f"--{name.replace('_', '-')}"
    if name in SWITCHES:
        return group.add_argument(flag, dest=name, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction)
    return group.add_argument(flag, dest=name, metavar=name.rpartition("_")[2].upper(), default=argparse.SUPPRESS)


def _describe(flags: dict[str, argparse.Action]) -> None:
    from tessera.app.settings import Settings

    for name, action in flags.items():
        field = Settings.model_fields[name]
        default = {True: "on", False: "off"}[field.default] if name in SWITCHES else field.default
        said = "" if default is None else f" (default {default})"
        action.help = f"{field.description}{said} [TESSERA_{name.upper()}]".replace("%", "%%")
        choices = get_args(field.annotation)
        if choices and all(isinstance(choice, str) for choice in choices):
            action.choices = choices  # for shells that complete it
