from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tessera.models.resnet import build_resnet
from tests.ascend.double_builds import Double, double
from tests.ascend.omfile import write_om
from tests.ascend.service import NORMALISATION, converted
from tests.unit.models.tiny import LABELS, MEAN, STD, tiny_model, tiny_state

__all__ = ["NORMALISATION", "double"]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of 26 layers for images of 32 x 32, as ONNX."""
    path = tmp_path_factory.mktemp("network") / "tiny.onnx"
    onnx.save(tiny_model(), path)
    return path


@pytest.fixture(scope="session")
def float_om(network: Path) -> Path:
    """The network as .om: float32 in and out, gears 1 to 16."""
    return write_om(network, network.with_name("float.om"), weights="float32")


@pytest.fixture(scope="session")
def pixel_om(network: Path) -> Path:
    """The network as .om with static AIPP: uint8 in, float16 out, gears 1 to 16."""
    return write_om(network, network.with_name("pixel.om"), pixels=NORMALISATION, output_type="float16")


@pytest.fixture(scope="session")
def small_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow ResNet of 26 layers for photos of 224 x 224."""
    root = tmp_path_factory.mktemp("small")
    graph = build_resnet(tiny_state(), name="small", size=224, mean=MEAN, std=STD, labels=LABELS)
    onnx.save(graph, root / "small.onnx")
    return converted(root / "converted", root / "small.onnx", LABELS, (1, 2, 4, 8, 16))


def opened(double: Double) -> Double:
    """The double after aclInit and with device 0 set on this thread."""
    assert double.raw.aclInit(None) == 0
    assert double.raw.aclrtSetDevice(0) == 0
    return double
