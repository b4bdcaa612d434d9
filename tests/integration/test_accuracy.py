"""200 real photos: the baseline answers as ONNX Runtime run directly, one by one and in parallel."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from models.registry import open_model
from tests.servers import CACHE, ServerProcess
from tests.shared_data import SHARED_DATA, requires_shared_data

PHOTOS = SHARED_DATA / "imagenette" / "val"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def chosen_photos(count: int = 200) -> list[tuple[Path, int]]:
    """Evenly over the classes: (file, index of its class)."""
    classes = sorted(folder for folder in PHOTOS.iterdir() if folder.is_dir())
    each = count // len(classes)
    return [(photo, index) for index, folder in enumerate(classes) for photo in sorted(folder.iterdir())[:each]]


def preprocess(data: bytes) -> np.ndarray:
    """The standard evaluation preprocessing, written down independently of the service: float32 [1, 3, 224, 224]."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    if width < height:
        picture = picture.resize((256, int(256 * height / width)), Image.Resampling.BILINEAR)
    else:
        picture = picture.resize((int(256 * width / height), 256), Image.Resampling.BILINEAR)
    left, top = round((picture.width - 224) / 2), round((picture.height - 224) / 2)
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[None].copy()


@requires_shared_data
def test_labels_of_200_photos(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    photos = chosen_photos()
    model = open_model(cache=CACHE)
    direct = onnxruntime.InferenceSession(model.variants["baseline"].path, providers=["CPUExecutionProvider"])
    data = [photo.read_bytes() for photo, _ in photos]
    truth = np.array([index for _, index in photos])
    expected = [int(direct.run(None, {"input": preprocess(photo)})[0].argmax()) for photo in data]

    def label(variant: str, photo: bytes) -> int:
        with server.client(headers={"X-Model-Variant": variant}) as client:
            answer = client.post("/v1/classify?top_k=1", content=photo)
        assert answer.status_code == 200, answer.text
        index: int = answer.json()["results"][0]["predictions"][0]["index"]
        return index

    lines = []
    for variant in ("baseline", "optimised"):
        one_by_one = [label(variant, photo) for photo in data]
        with ThreadPoolExecutor(16) as clients:
            parallel = list(clients.map(lambda photo, variant=variant: label(variant, photo), data))
        agreement = np.mean(np.array(one_by_one) == expected)
        accuracy = np.mean(np.array(one_by_one) == truth)
        lines.append(
            f"{variant}: top-1 {accuracy:.1%} on {len(data)} photos, agreement with ONNX Runtime {agreement:.1%}"
        )
        if variant == "baseline":
            assert one_by_one == expected
            assert parallel == expected
        else:
            assert parallel == one_by_one
            assert agreement >= 0.98  # 99.5 % on all photos; a sample of 200 may hold up to 4 of the rare disagreements
    with capsys.disabled():
        print("", *lines, sep="\n")
