"""The model repository of the protocol: which variants are loaded, and loading and unloading them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tessera.app.errors import ModelUnavailableError, UnsupportedOperationError
from tessera.app.oip.catalogue import Catalogue
from tessera.app.oip.wire.description import READY, UNAVAILABLE, index, index_entry
from tessera.app.service import Service


class Repository:
    """The variants of a service's model, as models that are loaded or not.

    Args:
        service: The service.

    Raises:
        NotReadyError: It has no model yet.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        served = service.check_ready()
        self._catalogue = Catalogue(served.name, served.variants)

    def available(self, variant: str) -> bool:
        """Whether requests for a variant are answered."""
        return variant not in self._service.unloaded

    def check_available(self, variant: str, model: str) -> None:
        """Check that requests for a variant are answered.

        Args:
            variant: The variant.
            model: The model as the client addressed it, for the message.

        Raises:
            ModelUnavailableError: It is not loaded.
        """
        if not self.available(variant):
            raise ModelUnavailableError(
                f"Request for unavailable model: {model!r} is not ready, its variant {variant!r} is unloaded."
            )

    def index(self, *, ready_only: bool) -> Sequence[Mapping[str, str]]:
        """The repository index."""
        entries = (
            index_entry(entry.name, version, *self._state(variant))
            for entry in self._catalogue.entries.values()
            for version, variant in entry.versions.items()
        )
        return index(entries, ready_only=ready_only)

    async def load(self, model: str) -> None:
        """Load every variant that a model stands for; those loaded stay as they are.

        Raises:
            UnknownModelError: There is no such model.
        """
        for variant in self._variants(model):
            await self._service.load_variant(variant)

    async def unload(self, model: str) -> None:
        """Refuse further requests for every variant that a model stands for, and free it; those in flight go on.

        Raises:
            UnknownModelError: There is no such model.
        """
        for variant in self._variants(model):
            await self._service.unload_variant(variant)

    def _variants(self, model: str) -> Iterable[str]:
        return self._catalogue.entry(model).versions.values()

    def _state(self, variant: str) -> tuple[str, str]:
        return (READY, "") if self.available(variant) else (UNAVAILABLE, "unloaded")


def check_load_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse to take a model's configuration or files from a request: no request reaches the file system.

    Raises:
        UnsupportedOperationError: The request has some.
    """
    if parameters:
        raise UnsupportedOperationError(
            "Loading with a configuration or files in the request is not supported; put the model into its folder."
        )
