from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from tests.holding import holding
from tests.servers import client, server
from tests.small_model import small_model

__all__ = ["client", "holding", "server", "small_model"]

# A runner that ignores them, as nohup and a shell's & do, would pass that on to everything that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code.
settings.register_profile("tessera", deadline=None)
settings.load_profile("tessera")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real servers come first: those files take longest, and short ones fill up the end of a run on several workers."""
    items.sort(key=lambda item: "integration" not in item.path.parts)
