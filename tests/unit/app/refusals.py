"""Refusals of parsers: a sentence for the client, and no other exception."""

from __future__ import annotations

from collections.abc import Callable

from tessera.app.errors import RequestError


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> RequestError | None:
    """The error that a call is refused with, or None when it is not; any other exception goes on."""
    try:
        call(*arguments, **options)
    except RequestError as error:
        return error
    return None


def check_refusal(error: RequestError | None) -> None:
    if error is not None:
        assert error.status in (400, 413, 415)
        assert error.message.endswith(".")
        assert len(error.message) < 400
