"""Which variant answers a request of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera.app.errors import UnknownVariantError
from tessera.app.oip.catalogue import Address
from tessera.app.routing.router import EXPLICIT, Decision
from tessera.app.routing.variants import HEADER
from tessera.app.service import Service


def choose(service: Service, address: Address, header: Callable[[str], Sequence[str]]) -> Decision:
    """Pick the variant: the one that the model's name or version says, else as for every other protocol.

    Args:
        service: The service, ready.
        address: The model that the request addresses.
        header: Gives every value of a request header.

    Raises:
        UnknownVariantError: The header names no variant, or another one than the model's name or version.
        InvalidParameterError: See `Service.route`.
    """
    decision = service.route(header)
    if address.variant is None:
        return decision
    if decision.reason == EXPLICIT and decision.variant != address.variant:
        raise UnknownVariantError(
            f"{HEADER} says {decision.variant!r}, but the request is for {address.variant!r} by the model's name or "
            "version."
        )
    return Decision(address.variant, EXPLICIT)
