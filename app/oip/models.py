"""What is said of a model: description, readiness, statistics."""

from __future__ import annotations

from tessera.app.errors import ModelUnavailableError
from tessera.app.oip.catalogue import Catalogue
from tessera.app.oip.repository import Repository
from tessera.app.oip.statistics import read_statistics
from tessera.app.oip.wire.description import ModelDescription, VariantStatistics, describe_statistics
from tessera.app.oip.wire.interface import Interface
from tessera.app.service import Service
from tessera.models.preprocessing.image_size import sides


class ModelViews:
    """Views on the models of a service that is ready.

    Args:
        service: The service.

    Raises:
        NotReadyError: It has no model yet.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._served = service.check_ready()
        self.catalogue = Catalogue(self._served.name, self._served.variants)
        self.interface = Interface(
            input_name=self._served.input_name,
            output_name=self._served.output_name,
            image=sides(self._served.preprocessing.size),
            others=tuple(map(sides, self._served.sizes[1:])),
            labels=self._served.labels,
            max_images=service.settings.max_images_per_request,
        )

    def description(self, model: str, version: str = "") -> ModelDescription:
        """Describe a model, or one version of it.

        Raises:
            UnknownModelError: There is no such model or version.
        """
        address = self.catalogue.address(model, version)
        variant = address.variant or self._service.settings.default_variant
        return ModelDescription(
            name=model,
            versions=tuple(self.catalogue.entry(model).versions),
            backend=self._served.variants[variant].backend,
            platform=self._served.variants[variant].platform,
            input_name=self.interface.input_name,
            output_name=self.interface.output_name,
            image=self.interface.image,
            others=self.interface.others,
            classes=len(self.interface.labels),
            max_batch=self._service.settings.max_batch,
        )

    def check_ready(self, model: str, version: str = "") -> None:
        """Check that requests for a model are answered; for several versions, that any of them is.

        Raises:
            UnknownModelError: There is no such model or version.
            ModelUnavailableError: It is not loaded.
        """
        address = self.catalogue.address(model, version)
        repository = Repository(self._service)
        if address.variant is not None:
            repository.check_available(address.variant, model)
        elif not any(repository.available(variant) for variant in self._served.variants):
            raise ModelUnavailableError(f"Model {model!r} has no available versions; load it first.")

    async def statistics(self, model: str = "", version: str = "") -> list[dict[str, object]]:
        """Statistics of one model, one version of it, or of everything.

        Raises:
            UnknownModelError: There is no such model or version.
        """
        if model:
            self.catalogue.address(model, version)
        exposition, _ = await self._service.render_metrics("text/plain")
        counted = read_statistics(exposition.decode())
        return [
            describe_statistics(
                entry.name,
                number,
                counted.get(variant, VariantStatistics()),
                memory=self._served.variants[variant].all_arena_bytes,
            )
            for entry in ([self.catalogue.entry(model)] if model else self.catalogue.entries.values())
            for number, variant in entry.versions.items()
            if version in ("", number)
        ]
