"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar, overload

import httpx

from tessera.client.answers import Classification
from tessera.client.attempts import Attempts, Size
from tessera.client.images import File, ImageLike, chunks, read_image

PATH = "/v1/classify"
DEFAULT_URL = "http://127.0.0.1:8000"

_Image = TypeVar("_Image", bound=ImageLike)


class Client:
    """Asks the service; safe to use from several threads at once.

    Args:
        url: Where the service is.
        timeout: Longest time for a request of up to 16 images, repetitions included, in seconds.
        http: A client of httpx in place of one of ours, for certificates, proxies or headers. It is not closed here.
    """

    def __init__(self, url: str = DEFAULT_URL, *, timeout: float = 30.0, http: httpx.Client | None = None) -> None:
        self._url = url.rstrip("/") + PATH
        self._timeout = timeout
        self._http = http or httpx.Client()
        self._own = http is None

    @overload
    def classify(
        self, images: ImageLike, *, variant: str | None = None, top_k: int = 5, size: Size | None = None
    ) -> Classification: ...
    @overload
    def classify(
        self,
        images: list[_Image] | tuple[_Image, ...],
        *,
        variant: str | None = None,
        top_k: int = 5,
        size: Size | None = None,
    ) -> list[Classification]: ...
    def classify(
        self,
        images: ImageLike | list[Any] | tuple[Any, ...],
        *,
        variant: str | None = None,
        top_k: int = 5,
        size: Size | None = None,
    ) -> Classification | list[Classification]:
        """Say what an image shows, or each of a list of them.

        A service that is busy, restarting or not there yet is asked again until the time is over, not before its
        `Retry-After`.

        Args:
            images: A path, the bytes of a file, a PIL image or a uint8 array [height, width, 3] in RGB; or a list or
                tuple of these.
            variant: Who shall answer, such as "baseline"; None for whom the service chooses.
            top_k: How many labels, the likeliest first.
            size: Of the images that the network sees, in pixels: one of those that the model is served at, a number
                for a square or (height, width). None for its usual one.

        Returns:
            A classification; of a list, one for each image in its order.

        Raises:
            RefusedError: The service refuses it, of a list any image.
            NoAnswerError: Nothing came before the deadline.
            OSError: A file cannot be read.
            TypeError: It is no image.
            ValueError: An array is of another type or shape.
        """
        if not isinstance(images, list | tuple):
            return self._ask([read_image(images)], variant, top_k, size)[0]
        return [answer for files in chunks(images) for answer in self._ask(files, variant, top_k, size)]

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, files: Sequence[File], variant: str | None, top_k: int, size: Size | None) -> list[Classification]:
        attempts = Attempts(files, variant, top_k, size, time.monotonic() + self._timeout)
        while True:
            try:
                result = attempts.answer(self._http.post(self._url, **attempts.request()))
            except httpx.TransportError as error:
                result = attempts.failed(error)
            if isinstance(result, list):
                return result
            time.sleep(result)
