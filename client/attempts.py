"""One request and its repetitions: what is sent, and when it is sent again. Pure, but for clock and chance."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tessera.client.answers import Classification, read_answer, read_error
from tessera.client.errors import ClientError, NoAnswerError
from tessera.client.images import File

Size = int | tuple[int, int]  # of a square; or height and width, in pixels

# Statuses that pass: too many requests, and, of proxies too, a service that is restarting or busy.
_PASSING = (429, 502, 503, 504)
# An image that an engine process died of would kill the next one too.
_NOT_AGAIN = "engine_lost"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds
_LONGEST_CONNECT = 5.0  # seconds
_DEFAULT_TOP_K = 5  # the service's own, which a model of fewer classes shortens


@dataclass
class Attempts:
    """The attempts at one request: `request()`, then `answer()` or `failed()`, until one of them ends it.

    Attributes:
        files: The images.
        variant: Who shall answer; None for whom the service chooses.
        top_k: How many labels.
        size: At which of the model's sizes; None for its usual one.
        deadline: On the monotonic clock, in seconds.
    """

    files: Sequence[File]
    variant: str | None
    top_k: int
    size: Size | None
    deadline: float
    _made: int = field(default=0, init=False)

    def request(self) -> dict[str, Any]:
        """What httpx's `post` takes for the next attempt."""
        left = max(0.001, self.deadline - time.monotonic())
        headers = {"X-Request-Timeout-Ms": str(max(1, int(left * 1000)))}
        if self.variant is not None:
            headers["X-Model-Variant"] = self.variant
        params: dict[str, int | str] = {}
        if self.top_k != _DEFAULT_TOP_K:
            params["top_k"] = self.top_k
        if self.size is not None:
            params["size"] = "x".join(map(str, (self.size,) if isinstance(self.size, int) else self.size))
        self._made += 1
        return {
            "headers": headers,
            "params": params,
            "files": [("file", (file.name, file.content)) for file in self.files],
            "timeout": httpx.Timeout(left, connect=min(left, _LONGEST_CONNECT)),
        }

    def answer(self, response: httpx.Response) -> list[Classification] | float:
        """The answer, or after how many seconds to try again.

        Raises:
            ClientError: It is refused for good, or the time is over.
        """
        if response.status_code == 200:
            return read_answer(response)
        error = read_error(response)
        if response.status_code not in _PASSING or error.code == _NOT_AGAIN:
            raise error
        told = response.headers.get("Retry-After", "")
        return self._pause(float(told) if told.isascii() and told.isdigit() else None, error)

    def failed(self, error: httpx.TransportError) -> float:
        """After how many seconds to try again after a connection failed; to classify twice does no harm.

        Raises:
            ClientError: It can never work, or the time is over.
        """
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise ClientError(f"The request cannot be sent: {error}") from error
        return self._pause(None, error)

    def _pause(self, told: float | None, error: Exception) -> float:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._made - 1)) if told is None else told
        pause *= random.uniform(1, 1.25)  # so that clients that failed together do not come back together
        if time.monotonic() + pause < self.deadline:
            return pause
        reason = str(error) if isinstance(error, ClientError) else f"{type(error).__name__} {error}".strip()
        raise NoAnswerError(f"No answer in time, after {self._made} attempts. The last one: {reason}") from error
