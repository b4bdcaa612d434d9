"""What lies at a path that is no model folder, and the command that makes a model folder of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

# Files that `tessera models add` takes.
MODEL_SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt")

_LABELS = "labels.txt"
_TRITON_LABELS = re.compile(r'label_filename\s*:\s*"([^"/]+)"')
_MOST_ENTRIES = 1000
_LARGEST_CONFIGURATION = 1 << 20


def describe_foreign(path: Path) -> str:
    """Sentences that say why a path is no model folder and, where it holds a model file, how to import that."""
    if not path.exists():
        return f"There is no model folder {path}. Check the path (TESSERA_MODELS or --model-path)."
    if path.is_file():
        return f"{path} is a file, not a model folder." + (_advice(path) if _is_model_file(path) else "")
    if triton := _triton_file(path):
        return f"{path} is laid out for Triton, not as a model folder." + _advice(triton, path, _triton_labels(path))
    files = [entry for entry in _entries(path) if _is_model_file(entry) or entry.name.endswith(".onnx.gz")]
    if files:
        importable = [file for file in files if _is_model_file(file)]
        labels = path / _LABELS
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:5])
            kind = "ONNX" if all(".onnx" in file.suffixes for file in files) else "model"
            problem = f"it holds {len(files)} {kind} files ({names}) and no model.toml that names one"
        elif ".onnx" in files[0].suffixes:
            problem = f"it has no {_LABELS} with the names of the classes, one per line"
        else:
            problem = "it has no model.toml"
        advice = _advice(importable[0], path if len(files) == 1 else None, labels) if importable else ""
        return f"{path} is no model folder: {problem}.{advice}"
    for folder in _entries(path):
        if (triton := _triton_file(folder)) is not None:
            return f"{path} holds no model folder, but models laid out for Triton." + _advice(
                triton, folder, _triton_labels(folder)
            )
    return f"{path} is no model folder: it has no model.toml, and no *.onnx or *.onnx.gz file with {_LABELS}."


def model_name(text: str) -> str:
    """The nearest text that can be a model's name: letters, digits, dots, dashes and underscores, 64 at most."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("-._")[:64] or "model"


def _advice(file: Path, folder: Path | None = None, labels: Path | None = None) -> str:
    words = ["tessera", "models", "add", str(file)]
    if folder is not None:
        words += ["--name", model_name(folder.resolve().name)]
    if labels is not None and labels.is_file():
        words += ["--labels", str(labels)]
    return f" Make one of it with: {shlex.join(words)}"


def _triton_file(folder: Path) -> Path | None:
    """The model file of the highest version in `folder/VERSION/model.onnx`."""
    versions = [entry for entry in _entries(folder) if entry.name.isascii() and entry.name.isdigit()]
    for version in sorted(versions, key=lambda entry: int(entry.name[:9]), reverse=True):
        if files := [entry for entry in _entries(version) if _is_model_file(entry)]:
            return files[0]
    return None


def _triton_labels(folder: Path) -> Path:
    try:
        with (folder / "config.pbtxt").open(encoding="utf-8", errors="replace") as file:
            named = _TRITON_LABELS.search(file.read(_LARGEST_CONFIGURATION))
    except OSError:
        named = None
    return folder / (named[1] if named else _LABELS)


def _is_model_file(path: Path) -> bool:
    return path.suffix.lower() in MODEL_SUFFIXES and path.is_file()


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
