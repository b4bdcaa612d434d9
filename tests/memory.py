"""What requests add to the memory of a server's processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import children
from tests.servers import ServerProcess


class Growth:
    """How far a server's memory rose above where it was.

    Attributes:
        bytes: The rises of all its processes together, once measured.
    """

    bytes = 0


@contextmanager
def growth(server: ServerProcess) -> Iterator[Growth]:
    """Measure the peak of what the block adds to the resident memory of a server's processes."""
    processes = [server.process.pid, *children(server).values()]
    before = {}
    for process in processes:
        Path(f"/proc/{process}/clear_refs").write_text("5")  # the peak begins anew, see proc_pid_clear_refs(5)
        before[process] = _status(process, "VmRSS")
    grown = Growth()
    yield grown
    grown.bytes = sum(max(0, _status(process, "VmHWM") - before[process]) for process in processes)


def _status(process: int, name: str) -> int:
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1]) * 1024
