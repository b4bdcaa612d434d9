from __future__ import annotations

import signal

from hypothesis import settings

from tests.holding import holding
from tests.servers import client, server
from tests.small_model import small_model

__all__ = ["client", "holding", "server", "small_model"]

# A runner that ignores it, as nohup does, would pass that on to every server that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says more about the machine than about the code.
settings.register_profile("tessera", deadline=None)
settings.load_profile("tessera")
