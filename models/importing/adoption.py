"""Models that are served from the file they came as: imported into the cache once, found there again by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from onnx import TensorProto

from tessera.engine.errors import ModelError
from tessera.engine.graph.reader import parse_model, read_file
from tessera.models.cache import exclusive, import_folder, make_folder
from tessera.models.formats.foreign import ForeignModel
from tessera.models.formats.weights import file_sha256
from tessera.models.importing.importer import ImportOptions, add_model
from tessera.models.package import is_package

Progress = Callable[[str, float], None]

# A change to what an import makes of the same file makes this one more.
_REVISION = 1


def adopt(model: ForeignModel, cache: Path, progress: Progress | None = None) -> Path:
    """The model folder of a file, made in the cache on first use.

    Several processes may adopt at once: one does the work, the others wait for it.

    Args:
        model: the file, and what lies around it.
        cache: the cache folder; created when missing.
        progress: called as `progress(stage, fraction)` where there is work to do.

    Raises:
        ModelError: as for `add_model`.
    """
    report = progress or (lambda stage, fraction: None)
    folder = adopted_folder(model, cache)
    if is_package(folder):
        return folder
    into = folder.parent
    make_folder(into)
    with exclusive(into, lambda: report("waiting for another process", 0.0)):
        if not is_package(folder):
            report(f"importing {model.file.name}", 0.0)
            labels = model.labels if model.labels.is_file() else None
            add_model(model.file, into, ImportOptions(name=model.name, labels=labels, size=model.size))
    return folder


def adopted_folder(model: ForeignModel, cache: Path) -> Path:
    """Where the model folder of a file is, once it has been adopted.

    Raises:
        ModelError: the file cannot be read.
    """
    return import_folder(cache, _fingerprint(model)) / model.name


def _fingerprint(model: ForeignModel) -> str:
    """Of everything that an import depends on, weights beside an ONNX file included."""
    files = [model.file]
    if model.file.suffix.lower() == ".onnx":
        files += _external_files(model.file)
    if model.labels.is_file():
        files.append(model.labels)
    state = [_REVISION, model.file.suffix.lower(), model.name, model.size, [file_sha256(file) for file in files]]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _external_files(file: Path) -> list[Path]:
    """Files beside an ONNX file that hold weights of it; what is wrong with it, or missing, the import tells."""
    folder = file.parent.resolve()
    try:
        tensors = parse_model(read_file(file)).graph.initializer
    except ModelError:
        return []
    names = {
        entry.value
        for tensor in tensors
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location" and isinstance(entry.value, str)
    }
    paths = [(folder / name).resolve() for name in sorted(names)]
    return [path for path in paths if path.is_relative_to(folder) and path.is_file()]
