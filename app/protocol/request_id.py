"""The id that ties an answer, its log lines and its client together."""

from __future__ import annotations

import os
import re

HEADER = "X-Request-ID"

_VALID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")


def request_id_for(sent: str | None) -> str:
    """Return the client's id when it is 1 to 128 harmless characters, else a new one."""
    if sent is not None and _VALID.fullmatch(sent):
        return sent
    return os.urandom(16).hex()
