"""What lies at a path that is no model folder: the model file in it, and what can be done about it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tessera.engine.errors import ModelError
from tessera.models.formats.triton import is_version, read_configuration, version_number
from tessera.models.preprocessing.image_size import Size

# Files that `tessera models add` takes.
MODEL_SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt")

_LABELS = "labels.txt"
_MOST_ENTRIES = 1000
_SHOWN = 5
# What other frameworks and servers keep networks in.
_OTHER_SUFFIXES = (".bin", ".engine", ".h5", ".keras", ".mlmodel", ".pb", ".plan", ".savedmodel", ".tflite")


@dataclass(frozen=True)
class ForeignModel:
    """A model file of another origin, with what its surroundings say of it.

    Attributes:
        file: the file.
        name: the model's name.
        labels: where the names of its classes lie, or may be written; it need not exist.
        size: height and width of an image in pixels, where a configuration says so.
    """

    file: Path
    name: str
    labels: Path
    size: Size | None = None


def find_foreign(path: Path) -> ForeignModel:
    """The one model file that a path means: a file, a folder with one, or any level of Triton's NAME/VERSION/FILE.

    A folder in which one of these lies means it as well, as buckets and archives are often unpacked.

    Raises:
        ModelError: it means none, or several; the message names what would work.
    """
    if not path.exists():
        raise ModelError(f"There is no {path}.")
    if path.is_file():
        return _of_file(path)
    if (is_version(path) and (found := _of_version(path))) or (found := _of_triton(path)):
        return found
    if (found := _only_file(path)) is not None:
        return found
    if files := [entry for entry in _entries(path) if _is_model_file(entry)]:
        raise ModelError(f"{path} holds {len(files)} model files ({_names(files)}); name one, such as {files[0]}.")
    models = [found for folder in _entries(path) if (found := _of_triton(folder) or _only_file(folder)) is not None]
    if len(models) == 1:
        return models[0]
    if models:
        names = ", ".join(model.name for model in models)
        raise ModelError(f"{path} holds several models ({names}); name one, such as {path / models[0].name}.")
    raise ModelError(f"{describe_foreign(path)}{_what_is_there(path)}")


def describe_foreign(path: Path) -> str:
    """Sentences that say why a path is no model folder and, where it holds a model file, how to import that."""
    if not path.exists():
        return f"There is no model folder {path}. Check the path (TESSERA_MODELS or --model-path)."
    if path.is_file():
        return f"{path} is a file, not a model folder." + (_advice(_of_file(path)) if _is_model_file(path) else "")
    if triton := _of_triton(path):
        return f"{path} is laid out for Triton, not as a model folder." + _advice(triton)
    files = [entry for entry in _entries(path) if _is_model_file(entry) or entry.name.endswith(".onnx.gz")]
    if files:
        importable = [file for file in files if _is_model_file(file)]
        if len(files) > 1:
            kind = "ONNX" if all(".onnx" in file.suffixes for file in files) else "model"
            problem = f"it holds {len(files)} {kind} files ({_names(files)}) and no model.toml that names one"
        elif ".onnx" in files[0].suffixes:
            problem = f"it has no {_LABELS} with the names of the classes, one per line"
        else:
            problem = "it has no model.toml"
        if not importable:
            return f"{path} is no model folder: {problem}."
        name = path.resolve().name if len(files) == 1 else importable[0].stem
        model = ForeignModel(importable[0], model_name(name), path / _LABELS)
        return f"{path} is no model folder: {problem}.{_advice(model)}"
    for folder in _entries(path):
        if (triton := _of_triton(folder)) is not None:
            return f"{path} holds no model folder, but models laid out for Triton." + _advice(triton)
    return f"{path} is no model folder: it has no model.toml, and no *.onnx or *.onnx.gz file with {_LABELS}."


def model_name(text: str) -> str:
    """The nearest text that can be a model's name: letters, digits, dots, dashes and underscores, 64 at most."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("-._")[:64] or "model"


def nearest_beside(path: Path) -> Path | None:
    """What a path that is not there may have meant: a folder or a model file beside it that is called much the same."""
    there = {entry.name: entry for entry in _entries(path.parent) if entry.is_dir() or _is_model_file(entry)}
    there |= {entry.stem: entry for entry in there.values() if entry.stem not in there}
    near = difflib.get_close_matches(path.name, there, 1)
    return there[near[0]] if near else None


def _advice(model: ForeignModel) -> str:
    words = ["tessera", "models", "add", str(model.file)]
    if model.name != model_name(model.file.stem):
        words += ["--name", model.name]
    if model.labels.is_file():
        words += ["--labels", str(model.labels)]
    return f" Make one of it with: {shlex.join(words)}"


def _of_file(file: Path) -> ForeignModel:
    if not _is_model_file(file):
        unpack = f" Unpack it first: gunzip -k {shlex.quote(str(file))}" if file.suffix == ".gz" else ""
        raise ModelError(f"{file} is no model: a model is a folder or {', '.join(MODEL_SUFFIXES)}.{unpack}")
    version = file.absolute().parent
    if is_version(version) and file.stem == "model":
        return _in_triton(file, version.parent)
    return ForeignModel(file, model_name(file.stem), file.parent / _LABELS)


def _only_file(folder: Path) -> ForeignModel | None:
    """The model in a folder that holds one model file."""
    files = [entry for entry in _entries(folder) if _is_model_file(entry)]
    return ForeignModel(files[0], model_name(folder.resolve().name), folder / _LABELS) if len(files) == 1 else None


def _of_triton(folder: Path) -> ForeignModel | None:
    """The model in `folder/VERSION/model.onnx`, of the highest version that is served."""
    versions = [entry for entry in _entries(folder) if is_version(entry)]
    if asked := read_configuration(folder).versions:
        versions = [version for version in versions if version_number(version) in asked]
    found = (_of_version(version) for version in sorted(versions, key=version_number, reverse=True))
    return next((model for model in found if model is not None), None)


def _of_version(version: Path) -> ForeignModel | None:
    folder = version.parent
    files = [entry for entry in _entries(version) if _is_model_file(entry)]
    default = read_configuration(folder).file
    files = [file for file in files if file.name == default] or files
    return _in_triton(files[0], folder) if files else None


def _in_triton(file: Path, folder: Path) -> ForeignModel:
    said = read_configuration(folder)
    return ForeignModel(file, model_name(folder.resolve().name), folder / (said.labels or _LABELS), said.size)


def _what_is_there(path: Path) -> str:
    """What to do about a folder with a network that cannot be imported, its own or of a version."""
    entries = [entry for folder in (path, *filter(is_version, _entries(path))) for entry in _entries(folder)]
    other = [entry for entry in entries if entry.suffix in _OTHER_SUFFIXES]
    return f" {other[0]} is of another framework: export that network to ONNX." if other else ""


def _is_model_file(path: Path) -> bool:
    return path.suffix.lower() in MODEL_SUFFIXES and path.is_file()


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:_SHOWN])


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order; nothing where it cannot be read, or is none."""

    def some() -> Iterator[Path]:
        for number, entry in enumerate(folder.iterdir()):
            if number == _MOST_ENTRIES:
                return
            if not entry.name.startswith("."):
                yield entry

    try:
        return sorted(some())
    except OSError:
        return []
