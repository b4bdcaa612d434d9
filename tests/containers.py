"""A server in the container's conditions: user 10001, no home, a read-only root, a /tmp of 16 MB, and volumes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import pytest

from tests.servers import READY, REPOSITORY
from tests.waiting import NEVER

USER = 10001

# The capability to read stands for an interpreter and a repository that only their owner may look at; none to write.
_INSIDE = f"""set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/cache /mnt/models
mount --bind "$CACHE" /mnt/cache
mount --bind "$MODELS" /mnt/models
mount -o remount,bind,ro /mnt/models
mount -o remount,ro /mnt
mount -o remount,bind,ro /
mount -t tmpfs -o size=16m,mode=1777 tmpfs /tmp
exec setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs --inh-caps=-all,+dac_read_search \
    --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search "$@"
"""
_UNSHARE = ["unshare", "--mount", "--propagation", "private"]


def _can_unshare() -> bool:
    tools = all(shutil.which(tool) for tool in ("unshare", "setpriv", "mount", "bash"))
    command = [*_UNSHARE, "mount", "-o", "remount,bind,ro", "/"]
    return tools and subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_containers = pytest.mark.skipif(not _can_unshare(), reason="needs root, and mount namespaces")


class Container:
    """A running `tessera`; a context manager that ends it.

    Args:
        folder: Outside of /tmp. Its `cache` is /mnt/cache, all that it may write to; its `models` is /mnt/models.
        arguments: What comes behind `tessera`.
        variables: Its environment, beside what Python needs.
    """

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        (folder / "cache").mkdir(exist_ok=True)
        os.chown(folder / "cache", USER, USER)
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*_UNSHARE, "bash", "-c", _INSIDE, "bash", sys.executable, "-m", "tessera.app.cli", *arguments],
                cwd=REPOSITORY,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(REPOSITORY),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "CACHE": str(folder / "cache"),
                    "MODELS": str(folder / "models"),
                    "TESSERA_CACHE_DIR": "/mnt/cache",
                    **variables,
                },
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def log(self) -> list[str]:
        """What it has logged."""
        return self._log.read_text().splitlines()

    def wait_until_ready(self) -> str:
        """Its URL."""
        assert self._process.stdout is not None
        ready = READY.match(self._process.stdout.readline())
        assert ready is not None, "\n".join(self.log)
        return ready[1]

    def stop(self) -> None:
        """End it in order."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(NEVER) == 0, "\n".join(self.log)

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()
