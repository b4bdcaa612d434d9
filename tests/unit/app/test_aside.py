from __future__ import annotations

import asyncio
import threading

import pytest

from tessera.app.oip.aside import run_aside
from tessera.app.oip.wire.datatypes import Proceed


def test_the_result_comes_back() -> None:
    assert asyncio.run(run_aside(lambda proceed: threading.current_thread() is threading.main_thread())) is False


def test_work_whose_request_is_gone_stops() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(proceed: Proceed) -> None:
        begun.set()
        try:
            while True:
                proceed()
        finally:
            ended.set()

    async def give_up() -> None:
        task = asyncio.ensure_future(run_aside(work))
        assert await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 60)

    asyncio.run(give_up())
