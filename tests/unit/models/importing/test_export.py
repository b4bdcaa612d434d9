"""Export from torchvision and timm: the same network, or clear words. Real torch where the extra is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tessera.app.cli import main
from tessera.engine.errors import ModelError
from tessera.models.importing.export import export_model
from tessera.models.importing.importer import ImportOptions
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.registry import open_model


def test_without_the_extra_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # what Python itself does for a module that is not there
    assert main(["models", "export", "torchvision", "resnet50", "--into", str(tmp_path / "library")]) == 1
    assert "pip install 'tessera-inference[export]'" in capsys.readouterr().err
    assert not (tmp_path / "library").exists()


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("torchvision", reason="torch is an optional extra; run: make test-export")
    return pytest.importorskip("torch")


def logits(folder: Path, cache: Path, images: np.ndarray) -> np.ndarray:
    from tessera import engine

    with engine.load(open_model(folder, cache=cache).variants["optimised"].path, backend="cpu") as session:
        return session.run(images)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("publisher", "network", "wanted"),
    [
        ("torchvision", "resnet18", Preprocessing(224, 256)),
        ("timm", "resnet18.a1_in1k", Preprocessing(224, 235, interpolation="bicubic")),
        ("timm", "resnet10t", Preprocessing(176, 201, interpolation="bicubic")),
    ],
)
def test_a_state_dict_becomes_the_network_that_torch_runs(
    torch: Any, tmp_path: Path, publisher: Any, network: str, wanted: Preprocessing, suffix: str
) -> None:
    library = pytest.importorskip(publisher)
    build = library.models.get_model if publisher == "torchvision" else library.create_model
    torch.manual_seed(0)
    module = build(network, num_classes=7).eval()
    state = {f"module.{key}": tensor for key, tensor in module.state_dict().items()}
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        save_file({key: tensor.numpy() for key, tensor in state.items()}, path)
    (tmp_path / "names").write_text("".join(f"name {index}\n" for index in range(7)), encoding="utf-8")
    options = ImportOptions(name="mine", labels=tmp_path / "names")
    package = export_model(publisher, network, tmp_path / "library", weights=str(path), options=options)
    assert package.labels[6] == "name 6"
    assert package.preprocessing == wanted
    images = np.random.default_rng(1).normal(0, 1, (3, 3, wanted.size, wanted.size)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    got = logits(package.folder, tmp_path / "cache", images)
    assert np.linalg.norm(got - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("publisher", "network", "weights", "message"),
    [
        ("torchvision", "resnet5", None, "no classifier 'resnet5'; did you mean: .*resnet50"),
        ("torchvision", "fcn_resnet50", None, "no classifier 'fcn_resnet50'"),
        ("torchvision", "resnet50", "IMAGENET22K", "It has: IMAGENET1K_V1, IMAGENET1K_V2"),
        ("torchvision", "resnet50", "gone.pth", "no file gone.pth"),
        ("timm", "resnet50.a9_in1k", None, "no classifier 'resnet50.a9_in1k'; did you mean: .*resnet50.a1_in1k"),
        ("timm", "resnet50", "IMAGENET1K_V1", "part of the name"),
        ("torchvision", "resnet50", "other.safetensors", "does not fit the network"),
        ("torchvision", "resnet50", "broken.pth", "broken.pth"),
        ("torchvision", "resnet50", None, "cannot be downloaded.*resnet50-11ad3fa6.pth.*--weights FILE"),
        ("timm", "resnet50.a1_in1k", None, "cannot be downloaded.*timm/resnet50.a1_in1k.*--weights FILE"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    torch: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    publisher: Any,
    network: str,
    weights: str | None,
    message: str,
) -> None:
    pytest.importorskip(publisher)
    monkeypatch.chdir(tmp_path)
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there: no network
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    save_file({"fc.bias": np.ones(5, np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ModelError, match=message):
        export_model(publisher, network, tmp_path / "library", weights=weights)
    assert not (tmp_path / "library").exists()
