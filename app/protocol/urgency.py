"""How long a client waits and how urgent its request is: the `X-Request-Timeout-Ms` and `X-Priority` headers."""

from __future__ import annotations

from collections.abc import Sequence

from tessera.app.errors import InvalidParameterError
from tessera.app.scheduling.ticket import Priority

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
PRIORITY_HEADER = "X-Priority"


def parse_timeout(header_values: Sequence[str], longest: int) -> int:
    """Milliseconds from the request's headers to its deadline.

    Args:
        header_values: Every `X-Request-Timeout-Ms` value of the request; empty when the header is absent.
        longest: The configured timeout, in milliseconds: the default, and what no request exceeds.

    Raises:
        InvalidParameterError: A value is not a whole number of milliseconds, at least 1, or there are several.
    """
    if not header_values:
        return longest
    value = _single(header_values, TIMEOUT_HEADER)
    if not (value.isascii() and value.isdigit()) or not value.strip("0"):
        raise InvalidParameterError(f"{TIMEOUT_HEADER} must be a whole number of milliseconds, at least 1.")
    digits = value.lstrip("0")
    return longest if len(digits) > len(str(longest)) else min(int(digits), longest)


def parse_priority(header_values: Sequence[str]) -> Priority:
    """The request's priority; `normal` without the header.

    Raises:
        InvalidParameterError: A value is no priority, or there are several.
    """
    if not header_values:
        return Priority.NORMAL
    try:
        return Priority(_single(header_values, PRIORITY_HEADER).lower())
    except ValueError:
        words = ", ".join(priority.value for priority in Priority)
        raise InvalidParameterError(f"{PRIORITY_HEADER} must be one of: {words}.") from None


def _single(values: Sequence[str], header: str) -> str:
    if len(values) > 1:
        raise InvalidParameterError(f"{header} is given {len(values)} times; give it once.")
    return values[0].strip()
