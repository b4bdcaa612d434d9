"""Servers whose engine waits for as long as a test wants, so that a moment lasts until the test has seen it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import REPOSITORY, ServerProcess

_MODULES = REPOSITORY / "tests" / "held"


class Holding:
    """Starts such servers.

    Args:
        folder: For the file that says whether they wait.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "held"

    def server(self, *flags: str, wait: bool = True, **settings: object) -> ServerProcess:
        """A server that waits when it is told to."""
        return ServerProcess(*flags, wait=wait, modules=_MODULES, **settings)

    def release(self) -> None:
        """Let it go on."""
        self.file.unlink(missing_ok=True)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """No model is loaded and no batch is made inside; requests are admitted and queued."""
        self.file.touch()
        try:
            yield
        finally:
            self.release()


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Holding]:
    with pytest.MonkeyPatch.context() as patch:
        made = Holding(tmp_path_factory.mktemp("holding"))
        patch.setenv("HELD_WHILE", str(made.file))
        yield made
