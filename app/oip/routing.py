"""Which variant answers a request of the protocol."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import UnknownVariantError
from app.oip.catalogue import Address
from app.routing.variants import HEADER, choose_variant
from app.service import Service


def choose(service: Service, address: Address, header_values: Sequence[str]) -> str:
    """Pick the variant: the one that the model's name or version says, else as for every other protocol.

    Args:
        service: The service, ready.
        address: The model that the request addresses.
        header_values: Every `X-Model-Variant` value of the request.

    Raises:
        UnknownVariantError: The header names no variant, or another one than the model's name or version.
    """
    chosen = choose_variant(header_values, service.check_ready().variants.keys(), service.settings.default_variant)
    if address.variant is None:
        return chosen
    if header_values and chosen != address.variant:
        raise UnknownVariantError(
            f"{HEADER} says {chosen!r}, but the request is for {address.variant!r} by the model's name or version."
        )
    return address.variant
