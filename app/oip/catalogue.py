"""The names under which a model and its variants can be addressed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tessera.app.errors import UnknownModelError

_FIRST = ("baseline", "optimised")  # have the versions 1 and 2 in every model, whatever else a model has


class Address(NamedTuple):
    """What a request addresses.

    Attributes:
        model: The model's name, as addressed.
        variant: The variant that it names, or None where routing decides.
    """

    model: str
    variant: str | None


class Entry(NamedTuple):
    """One model of the catalogue.

    Attributes:
        name: Its name.
        versions: Variant by version, in order.
    """

    name: str
    versions: dict[str, str]


class Catalogue:
    """Gives names to what is loaded.

    The model itself is there under its own name, with every variant as a version: "1" is baseline, "2" is optimised,
    others follow in the order of their names. Each variant is also a model of its own, `<model>-<variant>`, with that
    one version. Without a version, the model's own name leaves the choice to routing.

    Args:
        model: The model's name.
        variants: Its variants.
    """

    def __init__(self, model: str, variants: Iterable[str]) -> None:
        self.model = model
        names = set(variants)
        ordered = [*_FIRST, *sorted(names - set(_FIRST))]
        self._versions = {name: str(number) for number, name in enumerate(ordered, start=1) if name in names}
        own = Entry(model, {version: variant for variant, version in self._versions.items()})
        each = (Entry(f"{model}-{variant}", {version: variant}) for variant, version in self._versions.items())
        self.entries = {entry.name: entry for entry in (own, *each)}

    def version_of(self, variant: str) -> str:
        """The version number of a variant."""
        return self._versions[variant]

    def entry(self, name: str) -> Entry:
        """Look a model up.

        Raises:
            UnknownModelError: There is none; the message lists those there are.
        """
        found = self.entries.get(name)
        if found is None:
            raise UnknownModelError(
                f"Request for unknown model: {name[:80]!r} is not found; there are: {', '.join(sorted(self.entries))}."
            )
        return found

    def address(self, name: str, version: str = "") -> Address:
        """Resolve a model's name and version, "" for none.

        Raises:
            UnknownModelError: There is no such model, or no such version of it.
        """
        entry = self.entry(name)
        if version:
            if version not in entry.versions:
                raise UnknownModelError(
                    f"Request for unknown model: {name!r} has no version {version[:20]!r}; it has: "
                    f"{', '.join(entry.versions)}."
                )
            return Address(name, entry.versions[version])
        (variant, *others) = entry.versions.values()
        return Address(name, variant if name != self.model and not others else None)
