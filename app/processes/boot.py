"""First code of every child: ties its life to its parent's before anything is imported that takes long.

Run by its path with `-S`, so that not even `site` and what it imports come before. Only the standard library here.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import site
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Be the child that `tessera.app.processes.child_process.spawn` describes."""
    path, parent, module = sys.argv[1:4]
    join_parent(int(parent))
    # The parent's own module path, so that the child runs the same code whatever the working directory holds.
    sys.path[:] = json.loads(path)
    site.main()
    importlib.import_module(module).main()


def join_parent(parent: int) -> None:
    """Die when the parent dies, however that happens; leave signals to it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)


if __name__ == "__main__":
    main()
