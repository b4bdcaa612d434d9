"""Model repositories as Triton lays them out: NAME/VERSION/model.onnx beside NAME/config.pbtxt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tessera.models.preprocessing.image_size import Size, of_sides

_CONFIGURATION = "config.pbtxt"
_LARGEST_CONFIGURATION = 1 << 20
_COMMENT = re.compile(r"#[^\n]*")
_FILE = re.compile(r'default_model_filename\s*:\s*"([^"/]+)"')
_LABELS = re.compile(r'label_filename\s*:\s*"([^"/]+)"')
_VERSIONS = re.compile(r"specific\s*:?\s*\{\s*versions\s*:\s*\[([\d,\s]+)\]")
# Images [3, height, width], with a batch in front where max_batch_size is 0.
_IMAGE = re.compile(r"dims\s*:\s*\[\s*(?:-?\d+\s*,\s*)?3\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")


@dataclass(frozen=True)
class Configuration:
    """What `config.pbtxt` says, of which nothing has to be said.

    Attributes:
        file: name of the model's file.
        labels: name of the file with the names of its classes.
        versions: numbers of the versions that are served; empty for the highest.
        size: height and width of an image in pixels.
    """

    file: str | None = None
    labels: str | None = None
    versions: tuple[int, ...] = ()
    size: Size | None = None


def read_configuration(folder: Path) -> Configuration:
    """What a model's `config.pbtxt` says; one that is missing says nothing."""
    try:
        with (folder / _CONFIGURATION).open(encoding="utf-8", errors="replace") as file:
            text = _COMMENT.sub("", file.read(_LARGEST_CONFIGURATION))
    except OSError:
        return Configuration()
    file_name, labels, versions, image = (form.search(text) for form in (_FILE, _LABELS, _VERSIONS, _IMAGE))
    return Configuration(
        file_name[1] if file_name else None,
        labels[1] if labels else None,
        tuple(int(number[:9]) for number in re.findall(r"\d+", versions[1])) if versions else (),
        of_sides(int(image[1][:9]), int(image[2][:9])) if image else None,
    )


def is_version(folder: Path) -> bool:
    """Whether a folder is called as a version is: by a number."""
    return folder.name.isascii() and folder.name.isdigit()


def version_number(folder: Path) -> int:
    """The number of a version's folder."""
    return int(folder.name[:9])
