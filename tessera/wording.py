"""Numbers as people say them."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None, form: str = "") -> str:
    """A count with its noun: "1 thread", "2 threads", "1 class".

    Args:
        number: how many.
        noun: what one is called.
        plural: what several are called, where that is not the noun with an s.
        form: how the number is written; "," puts commas between thousands.
    """
    return f"{number:{form}} {noun if number == 1 else plural or noun + 's'}"
