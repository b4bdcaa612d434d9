"""Small ResNets with random weights, and model folders made of them: seconds where the real one takes minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tessera.models.resnet import build_resnet

SIZE = 32
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LABELS = ("ant", "bee", "cat", "dog", "eel")

State = dict[str, NDArray[np.floating]]


def tiny_state(*, bottleneck: bool = True, blocks: tuple[int, ...] = (2, 1, 1, 1), seed: int = 0) -> State:
    """A state dict with torchvision's key names: 8 channels in the stem, 5 classes."""
    random = np.random.default_rng(seed)
    state: State = {}

    def convolution(key: str, outputs: int, inputs: int, kernel: int) -> None:
        fan_in = inputs * kernel * kernel
        weight = random.normal(0, np.sqrt(2 / fan_in), (outputs, inputs, kernel, kernel))
        state[f"{key}.weight"] = weight.astype(np.float16)

    def batchnorm(key: str, channels: int) -> None:
        state[f"{key}.weight"] = random.uniform(0.5, 1.5, channels).astype(np.float32)
        state[f"{key}.bias"] = random.normal(0, 0.2, channels).astype(np.float32)
        state[f"{key}.running_mean"] = random.normal(0, 0.2, channels).astype(np.float32)
        state[f"{key}.running_var"] = random.uniform(0.5, 1.5, channels).astype(np.float32)

    channels = 8
    convolution("conv1", channels, 3, 7)
    batchnorm("bn1", channels)
    for stage, count in enumerate(blocks, start=1):
        width = 8 * 2 ** (stage - 1)
        outputs = width * 4 if bottleneck else width
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            shapes = [(width, 1), (width, 3), (outputs, 1)] if bottleneck else [(width, 3), (width, 3)]
            inputs = channels
            for number, (made, kernel) in enumerate(shapes, start=1):
                convolution(f"{prefix}.conv{number}", made, inputs, kernel)
                batchnorm(f"{prefix}.bn{number}", made)
                inputs = made
            if block == 0 and (stage > 1 or outputs != channels):
                convolution(f"{prefix}.downsample.0", outputs, channels, 1)
                batchnorm(f"{prefix}.downsample.1", outputs)
            channels = outputs
    state["fc.weight"] = random.normal(0, 0.2, (len(LABELS), channels)).astype(np.float16)
    state["fc.bias"] = random.normal(0, 0.2, len(LABELS)).astype(np.float32)
    return state


def tiny_model(**options: object) -> onnx.ModelProto:
    """The ONNX graph of `tiny_state`."""
    return build_resnet(tiny_state(**options), name="tiny", size=SIZE, mean=MEAN, std=STD, labels=LABELS)  # type: ignore[arg-type]


def tiny_images(count: int, seed: int = 1) -> NDArray[np.float32]:
    """Normalised images [count, 3, SIZE, SIZE] with some structure: smooth, not noise."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 1, (count, 3, 5, 5))
    pixels = np.kron(coarse, np.ones((1, 1, 7, 7)))[:, :, :SIZE, :SIZE]
    mean, std = np.array(MEAN).reshape(3, 1, 1), np.array(STD).reshape(3, 1, 1)
    return ((pixels - mean) / std).astype(np.float32)


def tiny_folder(folder: Path, **options: object) -> Path:
    """A described model folder: model.toml, weights.safetensors, labels.txt, and no calibration yet."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tiny_state(**options), folder / "weights.safetensors")  # type: ignore[arg-type]
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    (folder / "model.toml").write_text(
        f"""
name = "tiny"
architecture = "resnet"
weights = "weights.safetensors"

[preprocessing]
size = {SIZE}
resize = {SIZE}
""",
        encoding="utf-8",
    )
    return folder
