"""Official models from the network: `tessera models pull`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tessera.models.cache import downloads_folder, exclusive, make_folder
from tessera.models.importing.catalogue import CatalogueEntry
from tessera.models.importing.download import Patience, download
from tessera.models.importing.importer import ImportOptions, add_model, check_place
from tessera.models.package import Package, read_package

Progress = Callable[[str, float], None]


def pull_model(
    entry: CatalogueEntry,
    into: Path,
    cache: Path,
    *,
    options: ImportOptions | None = None,
    mirrors: Sequence[str] = (),
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Package:
    """Download a model of the catalogue and make a model folder of it, or find it there.

    Several processes may pull at once: one does the work, the others wait for it. What a broken transfer has brought
    stays in the cache, and the next pull continues it; it is never taken for a model.

    Args:
        entry: what to pull.
        into: folder of model folders; created when missing.
        cache: the cache folder, where downloads are kept until they are whole.
        options: labels and what else the file does not say of itself.
        mirrors: addresses to try first, see `download`.
        progress: called as `progress(stage, fraction)`.
        patience: how slow a server may be.

    Raises:
        ModelError: it cannot be downloaded, is not what it should be, or cannot be written.
    """
    report = progress or (lambda stage, fraction: None)
    given = options or ImportOptions()
    target = into / (given.name or entry.name)
    if not target.is_dir():
        check_place(into, target.name, given)
    folder = downloads_folder(cache, entry.name)
    make_folder(folder)
    with exclusive(folder, lambda: report("waiting for another process", 0.0)):
        if target.is_dir():
            return read_package(target)
        file = download(entry, folder, mirrors=mirrors, progress=progress, patience=patience)
        report(f"importing {entry.file}", 1.0)
        package = add_model(
            file,
            into,
            replace(
                given,
                name=target.name,
                resize=given.resize or entry.resize,
                interpolation=given.interpolation or entry.interpolation,
                description=given.description or entry.description,
            ),
        )
        file.unlink(missing_ok=True)
    return package
