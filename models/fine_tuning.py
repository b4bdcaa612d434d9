"""Training of a pruned network towards the dense one's answers; its zeros stay. Needs torch: the extra `export`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tessera.engine.errors import ModelError
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.writer import to_onnx
from tessera.models.preprocessing.photos import read_photos
from tessera.models.preprocessing.transform import Preprocessing

Progress = Callable[[str, float], None]

_BATCH = 16


@dataclass(frozen=True)
class FineTuning:
    """How a network is trained further.

    Attributes:
        photos: those that it is trained on; labels are not needed, the dense network tells what is right.
        epochs: how often it sees each.
        rate: of Adam's steps at first; it falls to nothing along a cosine.
        threads: of torch; None leaves the choice to it.
    """

    photos: Sequence[Path]
    epochs: int = 4
    rate: float = 1e-4
    threads: int | None = None


def check_torch() -> None:
    """Find out before long work whether torch is there.

    Raises:
        ModelError: it is not.
    """
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ModelError(
            f"Fine-tuning needs torch, which cannot be imported: {error}. "
            "Install it with: pip install 'tessera-inference[export]'"
        ) from error


def fine_tune(
    pruned: onnx.ModelProto,
    dense: onnx.ModelProto,
    how: FineTuning,
    preprocessing: Preprocessing,
    progress: Progress | None = None,
) -> onnx.ModelProto:
    """Move the weights of a pruned network's convolutions, but those that are zeros, towards the dense one's answers.

    What is made small is the squared error behind every residual and at the end, each over the dense network's power
    there. Batch normalisations are folded already; the classifier stays as it is.

    Args:
        pruned: float32 ONNX of the operators of ResNets, as `tessera.engine.pruning.Pruner` makes it.
        dense: the same network before it was pruned.
        how: photos and steps.
        preprocessing: how photos are prepared.
        progress: called as `progress(stage, fraction)`; each epoch is a stage, which tells the error of the one before.

    Returns:
        The trained network, with zeros wherever `pruned` has them.

    Raises:
        ModelError: torch is missing, an operator is none of ResNets', a photo cannot be read, or training diverges.
    """
    check_torch()
    from tessera.models.torch_graph import TorchGraph, tensor_of, torch

    if how.threads is not None:
        torch.set_num_threads(how.threads)
    graph = convert_model(pruned)
    student, teacher = TorchGraph(graph), TorchGraph(convert_model(dense))
    # What fusing has changed could not be written back: the classifier's, and all in front of a batch normalisation.
    trained = {
        name: tensor
        for name, tensor in student.constants.items()
        if name in graph.constants and np.array_equal(student.graph.constants[name], graph.constants[name])
    }
    masks = {name: tensor_of(graph.constants[name] != 0) for name, tensor in trained.items() if tensor.dim() == 4}
    for tensor in trained.values():
        tensor.requires_grad_(True)
    points = _points(student)
    optimiser = torch.optim.Adam(trained.values(), lr=how.rate)
    batches = -(-len(how.photos) // _BATCH)
    steps = how.epochs * batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    stage, error = "", 0.0
    for step, images in enumerate(_batches(how, preprocessing)):
        epoch, batch = divmod(step, batches)
        if batch == 0:
            stage = f"fine-tuning, epoch {epoch + 1} of {how.epochs}"
            stage += f", error {error / batches:.4f} in the last" if epoch else ""
            error = 0.0
        with torch.no_grad():
            wanted = teacher.values(images)
        got = student.values(images)
        errors = [(got[name] - wanted[name]).square().mean() / wanted[name].square().mean() for name in points]
        loss = sum(errors) / len(errors)
        if not torch.isfinite(loss):
            raise ModelError("Fine-tuning diverges: its error is no number. Prune a smaller share.")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for name, mask in masks.items():
                trained[name] *= mask
        error += loss.item()
        if progress is not None:
            progress(stage, (batch + 1) / batches)
    for name, tensor in trained.items():
        graph.constants[name] = tensor.detach().contiguous().numpy()
    return to_onnx(graph)


def _points(student: Any) -> list[str]:
    """The values behind residuals, and the result."""
    joined = [node.output for node in student.graph.nodes if node.op == "Add" or len(list(node.present_inputs())) > 3]
    return [*dict.fromkeys((*joined, student.graph.outputs[0]))]


def _batches(how: FineTuning, preprocessing: Preprocessing) -> Iterator[npt.NDArray[np.float32]]:
    """All photos in another order each epoch, each mirrored or not; the same for the same photos."""
    random = np.random.Generator(np.random.PCG64(0))
    for _ in range(how.epochs):
        order = [how.photos[index] for index in random.permutation(len(how.photos))]
        for images in read_photos(order, preprocessing, _BATCH):
            mirrored = random.random(len(images)) < 0.5
            images[mirrored] = images[mirrored][..., ::-1]
            yield images
