"""Variant by header, or the configured default."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tessera.app.errors import UnknownVariantError

HEADER = "X-Model-Variant"


def choose_variant(header_values: Sequence[str], valid: Collection[str], default: str) -> str:
    """Pick the variant that answers.

    Args:
        header_values: Every `X-Model-Variant` value of the request, in order; empty when the header is absent.
        valid: The variants that the loaded model has.
        default: The variant for requests without the header.

    Raises:
        UnknownVariantError: A value is no variant, or several values contradict each other.
    """
    if not header_values:
        return default
    names = {value.strip() for value in header_values}
    choices = ", ".join(sorted(valid))
    if len(names) > 1:
        raise UnknownVariantError(f"The request has several different {HEADER} headers; send one of: {choices}.")
    name = names.pop()
    if name not in valid:
        shown = name if len(name) <= 40 else name[:40] + "..."
        raise UnknownVariantError(f"There is no variant {shown!r}; {HEADER} takes one of: {choices}.")
    return name
