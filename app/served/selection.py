"""Which model the settings mean: a folder or a file by its path, or the name that `tessera models list` shows."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from tessera.app.errors import StartupError
from tessera.app.settings import Settings
from tessera.engine.errors import ModelError
from tessera.models.cache import default_cache, library_folder
from tessera.models.formats.foreign import ForeignModel, describe_foreign, find_foreign, nearest_beside
from tessera.models.importing.adoption import adopt
from tessera.models.importing.catalogue import read_catalogue
from tessera.models.package import Package, is_package, read_package
from tessera.models.registry import BUNDLED, find_packages, list_models
from tessera.models.variant import VARIANTS

Progress = Callable[[str, float], None]


def find_model(settings: Settings, progress: Progress | None = None) -> Path:
    """Decide which model folder the settings mean; one is made in the cache of what is a file of another origin.

    Raises:
        StartupError: As for `locate`.
        ModelError: The file cannot be imported.
    """
    found = locate(settings)
    return adopt(found, cache_folder(settings), progress) if isinstance(found, ForeignModel) else found


def read_model_folder(settings: Settings, progress: Progress | None = None) -> Package:
    """Read the model folder that the settings mean, for images of the sizes that they say.

    Raises:
        StartupError: As for `locate`.
        ModelError: It cannot be read, or takes no images of these sizes.
    """
    return read_package(find_model(settings, progress)).at(*settings.image_sizes)


def locate(settings: Settings) -> Path | ForeignModel:
    """Decide which model the settings mean, and read no more of it than that takes.

    A path goes before a name, and a model in `models` before one of the same name that is bundled or in the library.

    Returns:
        A model folder, or a model file of another origin.

    Raises:
        StartupError: No such model, or several to choose from; the message lists them.
    """
    root, path = settings.models, settings.model_path
    if root is not None and not root.is_dir():
        raise StartupError(f"The models folder {root} does not exist; set --models to a folder of model folders.")
    if path is not None:
        return _find(path, root, settings)
    if root is None:
        return BUNDLED
    found = list_models(root, cache=settings.cache_dir)
    if len(found) == 1:
        return found[0].folder
    if not found:
        raise StartupError(f"There is no model in {root}. {describe_foreign(root)}")
    names = ", ".join(summary.name for summary in found)
    raise StartupError(f"{root} holds several models ({names}); pick one with --model-path.")


def check_variant(name: str, flag: str) -> None:
    """Refuse a flag's variant that no model has, before a model is built.

    Raises:
        StartupError: There is no such variant; the message names those that there are.
    """
    if name not in VARIANTS:
        raise StartupError(f"There is no variant {name!r}; {flag} takes one of: {', '.join(VARIANTS)}.")


def cache_folder(settings: Settings) -> Path:
    """The cache folder that the settings mean."""
    return default_cache() if settings.cache_dir is None else settings.cache_dir


def shortest_name(folder: Path, settings: Settings) -> str:
    """What a user may call a model folder: its model's name where that means this folder, else a path."""
    given = settings.model_path
    if given is not None and isinstance(locate(settings), ForeignModel):
        return str(given)  # the folder is the cache's affair
    name = read_package(folder).name
    try:
        found = locate(settings.model_copy(update={"model_path": Path(name), "models": None}))
    except StartupError:
        return str(folder)
    return name if isinstance(found, Path) and found.resolve() == folder.resolve() else str(folder)


def _find(path: Path, root: Path | None, settings: Settings) -> Path | ForeignModel:
    candidates = [path] if root is None else [root / path, path]
    for candidate in candidates:
        if is_package(candidate):
            return candidate
    known = ([] if root is None else find_packages(root)) + find_packages(BUNDLED.parent)
    known += find_packages(library_folder(cache_folder(settings)))
    named = [package for package in known if package.name == str(path)]
    if root is not None:
        named = [package for package in named if package.folder.parent == root] or named
    # Conversions for Ascend have the name of what they were made from, and are found from there.
    named = [package for package in named if package.ascend is None] or named
    if len(named) > 1:
        folders = ", ".join(str(package.folder) for package in named)
        raise StartupError(f"Several models are called {path}; name one by its folder: {folders}.")
    if named:
        return named[0].folder
    for candidate in candidates:
        if candidate.exists():
            return _of_no_package(candidate)
    raise StartupError(_unknown(path, root, known))


def _of_no_package(path: Path) -> Path | ForeignModel:
    """What a path means that is there and is no model folder: the one model that lies in it, or a model file."""
    folders = find_packages(path)
    if len(folders) == 1:
        return folders[0].folder
    if folders:
        names = ", ".join(package.folder.name for package in folders)
        raise StartupError(f"{path} holds several models ({names}); name one, such as {folders[0].folder}.")
    try:
        return find_foreign(path)
    except ModelError as error:
        raise StartupError(str(error)) from error


def _unknown(path: Path, root: Path | None, known: list[Package]) -> str:
    where = f" (nor inside {root})" if root is not None else ""
    names = list(dict.fromkeys(package.name for package in known))
    problem = f"The model folder or file {path} does not exist{where}, and no model has that name."
    catalogue = read_catalogue()
    if (pulled := difflib.get_close_matches(path.name, catalogue, 1, 0.9)) and len(path.parts) == 1:
        return f"{problem} Fetch {pulled[0]} with: tessera models pull {pulled[0]}"
    if near := difflib.get_close_matches(str(path), names, 1):
        return f"{problem} Did you mean {near[0]}?"
    if beside := nearest_beside(path):
        return f"{problem} Did you mean {beside}?"
    return f"{problem} Known by name: {', '.join(names)}. To be pulled: {', '.join(catalogue)}."
