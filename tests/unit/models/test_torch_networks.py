"""Every family that can be imported, computed by PyTorch and by us. PyTorch is not a dependency: skipped without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tessera.engine.errors import ModelError
from tessera.models.importing.importer import ImportOptions, add_model
from tessera.models.source import float_model
from tests.unit.quantize.networks import run

torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is only needed to check imports against it")

SIZE = 64
# bottleneck, blocks per stage, groups, channels per group at 64 planes: the arguments of torchvision's ResNet.
FAMILIES = {
    "resnet18": (False, (2, 2, 2, 2), 1, 64),
    "resnet34": (False, (3, 4, 6, 3), 1, 64),
    "resnet50": (True, (3, 4, 6, 3), 1, 64),
    "resnet101": (True, (3, 4, 23, 3), 1, 64),
    "resnet152": (True, (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": (True, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": (True, (3, 4, 23, 3), 32, 8),
    "wide_resnet50_2": (True, (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": (True, (3, 4, 23, 3), 1, 128),
}


def random_state(bottleneck: bool, blocks: tuple[int, ...], groups: int, base: int) -> dict[str, Any]:
    torch.manual_seed(0)
    state: dict[str, Any] = {}

    def convolution(key: str, outputs: int, inputs: int, kernel: int) -> None:
        state[f"{key}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel * kernel / 2) ** 0.5

    def batchnorm(key: str, channels: int) -> None:
        state[f"{key}.weight"] = torch.rand(channels) * 0.5 + 0.5
        state[f"{key}.bias"] = torch.randn(channels) * 0.1
        state[f"{key}.running_mean"] = torch.randn(channels) * 0.1
        state[f"{key}.running_var"] = torch.rand(channels) + 0.5
        state[f"{key}.num_batches_tracked"] = torch.tensor(3)

    convolution("conv1", 64, 3, 7)
    batchnorm("bn1", 64)
    channels = 64
    for stage, count in enumerate(blocks, start=1):
        planes = 64 * 2 ** (stage - 1)
        width, outputs = (planes * base // 64 * groups, planes * 4) if bottleneck else (planes, planes)
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            shapes = [(width, channels, 3), (outputs, width, 3)]
            if bottleneck:
                shapes = [(width, channels, 1), (width, width // groups, 3), (outputs, width, 1)]
            for number, shape in enumerate(shapes, start=1):
                convolution(f"{prefix}.conv{number}", *shape)
                batchnorm(f"{prefix}.bn{number}", shape[0])
            if block == 0 and (stage > 1 or outputs != channels):
                convolution(f"{prefix}.downsample.0", outputs, channels, 1)
                batchnorm(f"{prefix}.downsample.1", outputs)
            channels = outputs
    state["fc.weight"], state["fc.bias"] = torch.randn(7, channels) / channels**0.5, torch.randn(7)
    return state


def reference(state: dict[str, Any], x: Any, bottleneck: bool, groups: int) -> Any:
    """The network in PyTorch's own functions."""
    functional = torch.nn.functional

    def unit(x: Any, convolution: str, batchnorm: str, stride: int = 1, groups: int = 1) -> Any:
        weight = state[f"{convolution}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
        mean, variance = state[f"{batchnorm}.running_mean"], state[f"{batchnorm}.running_var"]
        return functional.batch_norm(x, mean, variance, state[f"{batchnorm}.weight"], state[f"{batchnorm}.bias"])

    x = functional.max_pool2d(unit(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for prefix in dict.fromkeys(key.rsplit(".", 2)[0] for key in state if key.startswith("layer") and ".conv1." in key):
        stride = 2 if prefix.endswith(".0") and not prefix.startswith("layer1") else 1
        parts = [(1, 1), (stride, groups), (1, 1)] if bottleneck else [(stride, 1), (1, 1)]
        y = x
        for number, (step, split) in enumerate(parts, start=1):
            y = unit(y, f"{prefix}.conv{number}", f"{prefix}.bn{number}", step, split)
            y = y.relu() if number < len(parts) else y
        if f"{prefix}.downsample.0.weight" in state:
            x = unit(x, f"{prefix}.downsample.0", f"{prefix}.downsample.1", stride)
        x = (x + y).relu()
    return functional.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_imported_checkpoint_computes_what_pytorch_computes(tmp_path: Path, family: str) -> None:
    bottleneck, blocks, groups, base = FAMILIES[family]
    state = random_state(bottleneck, blocks, groups, base)
    x = torch.randn(2, 3, SIZE, SIZE)
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 9}, tmp_path / "net.pth")
    package = add_model(tmp_path / "net.pth", tmp_path, ImportOptions(size=SIZE, resize=SIZE))
    found = run(float_model(package), x.numpy())
    wanted = reference(state, x, bottleneck, groups).numpy()
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_and_pickle_protocols(tmp_path: Path, dtype: str, protocol: int) -> None:
    state = {
        key: value if "num_batches" in key else value.to(getattr(torch, dtype))
        for key, value in random_state(*FAMILIES["resnet18"]).items()
    }
    torch.save(state, tmp_path / "net.pt", pickle_protocol=protocol)
    package = add_model(tmp_path / "net.pt", tmp_path, ImportOptions(size=SIZE, resize=SIZE))
    (weight,) = [tensor for tensor in float_model(package).graph.initializer if tensor.name == "fc.weight"]
    assert np.array_equal(onnx.numpy_helper.to_array(weight), state["fc.weight"].float().numpy())


def test_files_of_old_pytorch_and_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"before 1\.6"):
        add_model(tmp_path / "old.pth", tmp_path)
    torch.save(torch.nn.Linear(2, 3), tmp_path / "whole.pth")
    with pytest.raises(ModelError, match="no state dict"):
        add_model(tmp_path / "whole.pth", tmp_path)
