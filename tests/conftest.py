from __future__ import annotations

from tests.holding import holding
from tests.servers import client, server

__all__ = ["client", "holding", "server"]
