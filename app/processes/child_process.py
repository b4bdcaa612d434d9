"""Child processes: a clean interpreter, told everything over one socket, never outliving the parent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tessera.app.observability.logs import configure_logs
from tessera.app.processes.messages import Kind, read_message, unpack_file
from tessera.app.settings import Settings

_BOOT = Path(__file__).with_name("boot.py")


def spawn(name: str, module: str, control: socket.socket, files: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start `main()` of a module in a process of its own.

    Args:
        name: Shown in its command line, for people.
        module: The module.
        control: The child's end of its connection with the parent.
        files: Further descriptors that it inherits, under the same numbers.
    """
    numbers = [control.fileno(), *files]
    told = [json.dumps(sys.path), str(os.getpid()), module, name, *map(str, numbers)]
    return subprocess.Popen(
        [sys.executable, "-S", _BOOT, *told],
        pass_fds=numbers,
        stdin=subprocess.DEVNULL,
        # Not in the terminal's group: Ctrl+C is for the parent, which ends its children in order.
        start_new_session=True,
    )


def inherited() -> list[int]:
    """The descriptors that `spawn` gave to this process: the control socket first."""
    return [int(number) for number in sys.argv[5:]]


def configuration(control: socket.socket) -> tuple[Settings, dict[str, object], tuple[int, ...]]:
    """Wait for CONFIGURE: the settings, what else it says, and the descriptors after its first."""
    message = read_message(control)
    if message.kind != Kind.CONFIGURE:
        raise RuntimeError(f"expected CONFIGURE first, not a message of kind {message.kind}")
    told = json.loads(unpack_file(message.files[0]))
    settings = Settings(**told.pop("settings"))
    configure_logs(settings.log_level, settings.log_format)
    return settings, told, message.files[1:]


def configure(control_message: dict[str, object], settings: Settings) -> bytes:
    """The JSON of CONFIGURE. All settings are in it, so that no child reads the configuration file again."""
    return json.dumps(
        {**control_message, "settings": {**settings.model_dump(), "config": None}}, default=_plain
    ).encode()


def _plain(value: object) -> object:
    reveal = getattr(value, "get_secret_value", None)
    return reveal() if reveal is not None else str(value)
