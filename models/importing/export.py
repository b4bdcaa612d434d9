"""Networks of torchvision and timm, exported to ONNX: `tessera models export`. The only code here that needs torch."""

from __future__ import annotations

import difflib
import importlib
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tessera import engine
from tessera.engine.errors import ModelError
from tessera.models.formats.checkpoint import read_checkpoint
from tessera.models.formats.state_dict import plain_keys
from tessera.models.formats.weights import read_weights
from tessera.models.importing.importer import ImportOptions, add_model, check_place
from tessera.models.package import Package
from tessera.models.preprocessing.image_size import Size, of_sides, sides
from tessera.models.preprocessing.transform import INTERPOLATIONS, Interpolation, Preprocessing

Publisher = Literal["torchvision", "timm"]
Progress = Callable[[str, float], None]

_FILES = (".pth", ".pt", ".safetensors")
_OPSET = 18
# Largest difference to torch's own logits, over their norm, that two float32 engines may have.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Network:
    """A network of torch in evaluation mode, and what its publisher says of it."""

    module: Any
    size: Size
    resize: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: Sequence[str]
    description: str


def export_model(
    publisher: Publisher,
    name: str,
    into: Path,
    *,
    weights: str | None = None,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> Package:
    """Export a network to ONNX as a model folder, with its labels and preprocessing. Whole or not at all.

    The exported graph is run on a random image and compared with torch before anything is placed.

    Args:
        publisher: who defines the network.
        name: what they call it: "resnet50", or "resnet50.a1_in1k" of timm.
        into: folder of model folders; created when missing.
        weights: file of a state dict, or torchvision's name for its weights; default: the publisher's, downloaded.
        options: what differs from what the publisher says.
        progress: called as `progress(stage, fraction)`.

    Raises:
        ModelError: torch or the publisher's package is missing, there is no such network, its weights cannot be had or
            do not fit, it cannot be exported, or there is a model of that name.
    """
    report = progress or (lambda stage, fraction: None)
    given = options or ImportOptions()
    check_place(into, given.name or f"{publisher}-{name}", given)
    report("loading torch", 0.0)
    torch = _require("torch")
    report(f"loading {name}", 0.1)
    network = (_torchvision if publisher == "torchvision" else _timm)(name, weights)
    size = given.size or network.size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        report("exporting", 0.4)
        _export(torch, network.module, size, path)
        report("comparing with torch", 0.8)
        _compare(torch, network.module, size, path)
        labels = given.labels
        if labels is None and network.labels:
            labels = Path(folder) / "labels.txt"
            labels.write_text("".join(f"{label}\n" for label in network.labels), encoding="utf-8")
        return add_model(
            path,
            into,
            replace(
                given,
                name=given.name or f"{publisher}-{name}",
                labels=labels,
                mean=given.mean or network.mean,
                std=given.std or network.std,
                size=size,
                resize=given.resize or Preprocessing(network.size, network.resize).at(size).resize,
                interpolation=given.interpolation or network.interpolation,
                description=given.description or network.description,
            ),
        )


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"Exporting needs {package}, which cannot be imported: {error}. "
            "Install it with: pip install 'tessera-inference[export]'"
        ) from error
    except Exception as error:  # a torchvision that was built for another torch
        raise ModelError(
            f"{package} cannot be imported: {_first_line(error)}. Does its version fit torch's?"
        ) from error


def _torchvision(name: str, weights: str | None) -> _Network:
    library = _require("torchvision").models
    # Classifiers are the models of the package itself; those for other tasks live in packages below it.
    _check_name("torchvision", name, library.list_models(module=library))
    known = library.get_model_weights(name)
    file = _file(weights)
    wanted = "DEFAULT" if weights is None or file is not None else weights
    if not hasattr(known, wanted):
        raise ModelError(
            f"torchvision has no weights '{weights}' of {name}, and there is no such file. "
            f"It has: {', '.join(entry.name for entry in known) or 'none'}."
        )
    entry = getattr(known, wanted)
    if file is not None:
        module = _with_file(lambda **classes: library.get_model(name, weights=None, **classes), file)
    else:
        module = library.get_model(name, weights=None, num_classes=len(entry.meta["categories"]))
        module.load_state_dict(_fetched(name, lambda: entry.get_state_dict(progress=True, check_hash=True), entry.url))
    transforms = entry.transforms()
    return _Network(
        module.eval(),
        of_sides(*(int(length) for length in (transforms.crop_size * 2)[:2])),
        int(transforms.resize_size[0]),
        _interpolation(transforms.interpolation.value),
        _triple(transforms.mean),
        _triple(transforms.std),
        () if file is not None else tuple(entry.meta["categories"]),
        f"{name} of torchvision, {file.name if file is not None else entry.name}",
    )


def _timm(name: str, weights: str | None) -> _Network:
    library = _require("timm")
    plain = name.partition(".")[0]
    _check_name("timm", plain, library.list_models())
    if plain != name:
        _check_name("timm", name, library.list_pretrained())
    file = _file(weights)
    if weights is not None and file is None:
        raise ModelError(f"There is no file {weights}. timm's weights are part of the name, as in resnet50.a1_in1k.")
    if file is not None:
        module = _with_file(lambda **classes: library.create_model(name, pretrained=False, **classes), file)
    else:
        address = library.get_pretrained_cfg_value(name, "hf_hub_id") or ""
        module = _fetched(
            name,
            lambda: library.create_model(name, pretrained=True),
            f"https://huggingface.co/{address}/resolve/main/model.safetensors" if address else "",
        )
    config = _require("timm.data").resolve_model_data_config(module)
    size = of_sides(*(int(length) for length in config["input_size"][1:]))
    return _Network(
        module.eval(),
        size,
        math.floor(min(sides(size)) / config["crop_pct"]),
        _interpolation(config["interpolation"]),
        _triple(config["mean"]),
        _triple(config["std"]),
        () if file is not None else _timm_labels(module),
        f"{name} of timm{f', {file.name}' if file is not None else ''}",
    )


def _timm_labels(module: Any) -> tuple[str, ...]:
    data = _require("timm.data")
    try:
        subset = data.infer_imagenet_subset(module)
        return tuple(data.ImageNetInfo(subset).label_descriptions()) if subset else ()
    except (AttributeError, TypeError):  # a timm without these
        return ()


def _check_name(publisher: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, 5, 0.5))
        raise ModelError(f"{publisher} has no classifier '{name}'{f'; did you mean: {near}?' if near else '.'}")


def _file(weights: str | None) -> Path | None:
    path = Path(weights or "")
    if weights is None or not (path.is_file() or path.suffix.lower() in _FILES):
        return None
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    if path.suffix.lower() not in _FILES:
        raise ModelError(f"{path} is of no kind that holds a state dict: {', '.join(_FILES)}.")
    return path


def _with_file(build: Callable[..., Any], file: Path) -> Any:
    """A network with the tensors of a file, and as many classes as these have."""
    torch = _require("torch")
    arrays = plain_keys(read_weights(file) if file.suffix.lower() == ".safetensors" else read_checkpoint(file))
    state = {key: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for key, array in arrays.items()}
    module = build()
    last = list(module.state_dict())[-1]
    if last in state and state[last].ndim == 1 and len(state[last]) != len(module.state_dict()[last]):
        module = build(num_classes=len(state[last]))
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{file} does not fit the network: {' '.join(str(error).split())[:300]}") from error
    wrong = [key for key in missing if not key.endswith("num_batches_tracked")]
    if wrong or unexpected:
        what = f"it lacks {wrong[0]}" if wrong else f"it also holds {unexpected[0]}"
        raise ModelError(f"{file} does not fit the network: {what} ({len(wrong)} missing, {len(unexpected)} too many).")
    return module


def _fetched(name: str, fetch: Callable[[], Any], address: str) -> Any:
    try:
        return fetch()
    except Exception as error:
        # Network, hub and hash errors have no base in common; the network's definition was found before.
        raise ModelError(
            f"The weights of {name} cannot be downloaded: {_first_line(error)}. "
            f"Fetch {address or 'them'} elsewhere and give the file with --weights FILE."
        ) from error


def _export(torch: Any, module: Any, size: Size, path: Path) -> None:
    image = torch.zeros(2, 3, *sides(size))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (image,),
                str(path),
                input_names=["input"],
                output_names=["output"],
                opset_version=_OPSET,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
                external_data=False,
                verbose=False,
            )
    except ImportError as error:
        raise ModelError(
            f"Exporting needs {error.name}. Install it with: pip install 'tessera-inference[export]'"
        ) from error
    except Exception as error:
        raise ModelError(f"torch cannot export this network: {_first_line(error)}.") from error


def _compare(torch: Any, module: Any, size: Size, path: Path) -> None:
    image = np.random.default_rng(0).normal(0, 1, (1, 3, *sides(size))).astype(np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(image)).numpy()
    with engine.load(path) as session:
        got = session.run(image)
    difference = float(np.linalg.norm(got - wanted)) if got.shape == wanted.shape else math.inf
    if not difference <= _TOLERANCE * float(np.linalg.norm(wanted)):
        raise ModelError("The exported graph does not compute what torch computes; it was not kept.")


def _interpolation(name: str) -> Interpolation:
    for known in INTERPOLATIONS:
        if name == known:
            return known
    raise ModelError(f"This network wants photos scaled with '{name}'; Tessera has {', '.join(INTERPOLATIONS)}.")


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
