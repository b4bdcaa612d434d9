from __future__ import annotations

from tests.servers import client, server

__all__ = ["client", "server"]
