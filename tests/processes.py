"""What the operating system says about the processes of a server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.servers import ServerProcess

_CONNECTIONS = 32  # chance gives each to one of the frontends


def children(server: ServerProcess) -> dict[str, int]:
    """Process ids by role: `engine`, `spare` (an engine process without a model), `frontend-0`, `frontend-1`, ..."""
    found = {}
    pid = server.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = command_of(int(child))
        if (match := re.search(r"tessera-(engine|frontend-\d+)-\d+", command)) is not None:
            # Engine processes serve in the order in which they were started.
            found["spare" if match[1] in found else match[1]] = int(child)
    return found


def command_of(pid: int) -> str:
    """The command line, empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def replaced(server: ServerProcess, role: str, former: int) -> Callable[[], bool]:
    """Whether another process has taken over a role, and the service is ready again, whichever frontend is asked."""

    def condition() -> bool:
        if children(server).get(role, former) == former:
            return False
        with server.client(headers={"Connection": "close"}) as client:
            return all(client.get("/readyz").status_code == 200 for _ in range(_CONNECTIONS))

    return condition
