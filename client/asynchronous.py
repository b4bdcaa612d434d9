"""The client for event loops."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar, overload

import anyio
import anyio.to_thread
import httpx

from tessera.client.answers import Classification
from tessera.client.attempts import Attempts, Size
from tessera.client.images import File, ImageLike, chunks, read_image
from tessera.client.synchronous import DEFAULT_URL, PATH

_Image = TypeVar("_Image", bound=ImageLike)


class AsyncClient:
    """What `Client` is, with `await`; the arguments are its."""

    def __init__(self, url: str = DEFAULT_URL, *, timeout: float = 30.0, http: httpx.AsyncClient | None = None) -> None:
        self._url = url.rstrip("/") + PATH
        self._timeout = timeout
        self._http = http or httpx.AsyncClient()
        self._own = http is None

    @overload
    async def classify(
        self, images: ImageLike, *, variant: str | None = None, top_k: int = 5, size: Size | None = None
    ) -> Classification: ...
    @overload
    async def classify(
        self,
        images: list[_Image] | tuple[_Image, ...],
        *,
        variant: str | None = None,
        top_k: int = 5,
        size: Size | None = None,
    ) -> list[Classification]: ...
    async def classify(
        self,
        images: ImageLike | list[Any] | tuple[Any, ...],
        *,
        variant: str | None = None,
        top_k: int = 5,
        size: Size | None = None,
    ) -> Classification | list[Classification]:
        """Say what an image shows, or each of a list of them; see `Client.classify`."""
        if not isinstance(images, list | tuple):
            file = await anyio.to_thread.run_sync(read_image, images)
            return (await self._ask([file], variant, top_k, size))[0]
        groups, answers = chunks(images), []
        # Files are read and arrays compressed on a thread, so that the event loop goes on.
        while files := await anyio.to_thread.run_sync(next, groups, ()):
            answers += await self._ask(files, variant, top_k, size)
        return answers

    async def close(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(
        self, files: Sequence[File], variant: str | None, top_k: int, size: Size | None
    ) -> list[Classification]:
        attempts = Attempts(files, variant, top_k, size, time.monotonic() + self._timeout)
        while True:
            try:
                result = attempts.answer(await self._http.post(self._url, **attempts.request()))
            except httpx.TransportError as error:
                result = attempts.failed(error)
            if isinstance(result, list):
                return result
            await anyio.sleep(result)
