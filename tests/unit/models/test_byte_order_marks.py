"""Texts that users write begin with a byte order mark where Windows wrote them; it is no part of what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera.engine.errors import ModelError
from tessera.engine.quantize.calibration import ActivationRange, Calibration
from tessera.models.evaluation.photos import ClassNames, find_labelled, read_wnids
from tessera.models.importing.catalogue import CATALOGUE, read_catalogue
from tessera.models.importing.importer import ImportOptions, add_model
from tessera.models.package import read_labels, read_package
from tests.imagefiles import png
from tests.unit.models.classifiers import CLASSES, classifier
from tests.unit.models.tiny import LABELS, tiny_folder


def write(path: Path, text: str) -> Path:
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    return path


def test_labels(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.txt", "ant\nbee\ncat\ndog\neel\n")
    assert read_labels(labels) == LABELS
    (tmp_path / "net.onnx").write_bytes(classifier().SerializeToString())
    package = add_model(tmp_path / "net.onnx", tmp_path / "library", ImportOptions(labels=labels))
    assert package.labels == LABELS
    assert (package.folder / "labels.txt").read_bytes() == "".join(f"{label}\n" for label in LABELS).encode()
    assert len(LABELS) == CLASSES


def test_model_folders(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    wanted = read_package(folder)
    for name in ("model.toml", "labels.txt"):
        write(folder / name, (folder / name).read_text(encoding="utf-8"))
    assert read_package(folder) == wanted


def test_names_of_classes_and_lists_of_photos(tmp_path: Path) -> None:
    assert read_wnids(write(tmp_path / "wnids.txt", "n01 ant\nn02\n"), 2) == ("n01", "n02")
    (tmp_path / "a.png").write_bytes(png())
    photos = find_labelled(tmp_path, ClassNames(LABELS), write(tmp_path / "val.txt", "a.png 1\n\n"))
    assert [(photo.path, photo.label) for photo in photos.photos()] == [(tmp_path / "a.png", 1)]


def test_calibrations_and_catalogues(tmp_path: Path) -> None:
    calibration = Calibration({"input": ActivationRange(-1, 2)})
    assert Calibration.load(write(tmp_path / "calibration.json", calibration.to_json())) == calibration
    text = CATALOGUE.read_text(encoding="utf-8")
    assert read_catalogue(write(tmp_path / "catalogue.toml", text)) == read_catalogue()


def test_utf_16_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("ant\nbee\n".encode("utf-16"))
    with pytest.raises(ModelError, match=r"labels\.txt.*Save it as UTF-8"):
        read_labels(tmp_path / "labels.txt")
