"""The catalogue: complete, well-formed, and clear when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera.engine.errors import ModelError
from tessera.models.importing.catalogue import find_entry, read_catalogue

GOOD = '[m]\ndescription = ""\nfile = "m.onnx"\nbytes = 3\nsha256 = "0123abcd"\nurls = ["http://x/m"]\n'


def test_official_models_are_there_and_pinned() -> None:
    entries = read_catalogue()
    assert set(entries) == {
        "resnet50-v1-12",
        "resnet50-v1-12-int8",
        "resnet50-v1-12-qdq",
        "resnet50-v2-7",
        "torchvision-resnet50-v1",
        "torchvision-resnet50-v2",
        "timm-resnet50-a1",
    }
    for entry in entries.values():
        assert len(entry.sha256) == 64
        assert all(url.startswith("https://") and url.endswith(entry.file) for url in entry.urls)
        assert 20_000_000 < entry.bytes < 110_000_000


def test_torchvision_names_begin_the_hash() -> None:
    for name in ("torchvision-resnet50-v1", "torchvision-resnet50-v2"):
        entry = find_entry(name)
        assert entry.file == f"resnet50-{entry.sha256[:8]}.pth"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'alexnet'.*resnet50-v1-12.*models add"):
        find_entry("alexnet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m = ", "Cannot read"),
        ("m = 3", "'m' must be a table"),
        (GOOD + "colour = 1", "'m' must be a table with no other keys"),
        (GOOD.replace('"m.onnx"', '"../m.onnx"'), r"'m\.file'"),
        (GOOD.replace("= 3", "= 0"), r"'m\.bytes'"),
        (GOOD.replace("0123abcd", "0123abc"), r"'m\.sha256'"),
        (GOOD.replace('["http://x/m"]', "[]"), r"'m\.urls'"),
        (GOOD + 'resize = "big"', r"'m\.resize'"),
        (GOOD + 'interpolation = "nearest"', r"'m\.interpolation'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        read_catalogue(path)
