"""A model folder whose network costs next to nothing, for tests of what is around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tessera.models.preprocessing.image_size import Size
from tests.unit.models.tiny import LABELS, tiny_state


def small_folder(folder: Path, *, seed: int = 0, size: Size = 224, resize: int = 256) -> Path:
    """Make or remake a model of 5 classes, for photos prepared as for the real one; the seed changes its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    state = tiny_state(blocks=(1, 1, 1, 1), seed=seed)
    save_file(state, folder / "weights.safetensors")  # type: ignore[arg-type]
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    (folder / "model.toml").write_text(
        'name = "small"\narchitecture = "resnet"\nweights = "weights.safetensors"\nlabels = "labels.txt"\n'
        f"[preprocessing]\nsize = {json.dumps(size)}\nresize = {resize}\n"
        "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that no test changes; its weights tell the pictures of `tests.chaos` apart."""
    return small_folder(tmp_path_factory.mktemp("models") / "small", seed=1)
