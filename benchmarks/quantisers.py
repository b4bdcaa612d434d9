"""Accuracy of int8 by our quantiser, ONNX Runtime's and NNCF's on real photos: `make quantisers`.

All see the same photos of `imagenet-sample` (three of every five) and are scored on all others, against the same
float32 network. Each runs in the engine that it is made for.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.peer_models import Array, find_data, versions
from tessera import engine
from tessera.engine.quantize.measures import agreement, sqnr
from tessera.models.package import read_package
from tessera.models.preprocessing.photos import find_photos, read_photos
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.quantise import quantise_model
from tessera.models.registry import open_model

Run = Callable[[Array], Array]


class Quantisers:
    """Makes the int8 model of each tool.

    Args:
        data: the folder of real weights and photos.
        scratch: where models are written.
    """

    def __init__(self, data: Path, scratch: Path) -> None:
        self._model = data / "resnet50-imagenet"
        self._scratch = scratch
        photos = find_photos(data / "imagenet-sample")
        self._calibration = scratch / "calibration"
        self._calibration.mkdir()
        for photo in (photo for index, photo in enumerate(photos) if index % 5 < 3):
            (self._calibration / photo.name).symlink_to(photo)
        self.scored = [photo for index, photo in enumerate(photos) if index % 5 >= 3]
        self.preprocessing: Preprocessing = read_package(self._model).preprocessing
        self._float = open_model(self._model, cache=scratch / "float").variants["baseline"].path

    def fp32(self) -> Run:
        """The float network, on ONNX Runtime."""
        return engine.load(self._float, backend="onnxruntime").run

    def ours(self) -> Run:
        """Our quantiser with its defaults."""
        quantise_model(self._model, self._calibration, cache=self._scratch / "ours")
        return engine.load(open_model(self._model, cache=self._scratch / "ours").variants["optimised"].path).run

    def onnxruntime(self) -> Run:
        """ONNX Runtime's static quantisation: MinMax, QDQ, weights per channel, as its own advice for x86 is."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        images = self._images()

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no type information
            def get_next(self) -> dict[str, Array] | None:
                image = next(images, None)
                return None if image is None else {"input": image}

        prepared, path = self._scratch / "prepared.onnx", self._scratch / "onnxruntime.onnx"
        quant_pre_process(str(self._float), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return engine.load(path, backend="onnxruntime").run

    def nncf(self) -> Run:
        """NNCF with its defaults, all calibration photos, on OpenVINO."""
        import nncf
        import openvino

        core = openvino.Core()
        images = list(self._images())
        quantised = nncf.quantize(core.read_model(self._float), nncf.Dataset(images), subset_size=len(images))
        compiled = core.compile_model(quantised, "CPU")
        return lambda batch: np.array(compiled(batch)[0])

    def _images(self) -> Iterator[Array]:
        return read_photos(find_photos(self._calibration), self.preprocessing, batch=1)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with resnet50-imagenet and imagenet-sample")
    data = find_data(parser.parse_args().data)
    with tempfile.TemporaryDirectory(prefix="tessera-") as scratch:
        quantisers = Quantisers(data, Path(scratch))
        images = np.concatenate(list(read_photos(quantisers.scored, quantisers.preprocessing)))
        truth = np.array([int(photo.name.partition("_")[0]) for photo in quantisers.scored])
        wanted = _answers(quantisers.fp32(), images)
        table = Table(box=box.MARKDOWN)
        for heading in ("quantiser", "seconds", "agreement", "SQNR", "top-1", "top-5", "top-5 loss, points"):
            table.add_column(heading, justify="left" if heading == "quantiser" else "right")
        reference = _top5(wanted, truth)
        top1 = float((wanted.argmax(axis=1) == truth).mean())
        table.add_row("none (fp32)", "", "", "", f"{top1:.1%}", f"{reference:.1%}", "")
        for name, make in (
            ("Tessera", quantisers.ours),
            ("ONNX Runtime MinMax", quantisers.onnxruntime),
            ("NNCF", quantisers.nncf),
        ):
            started = time.perf_counter()
            try:
                run = make()
            except ImportError as error:
                print(f"{name} is left out: {error} (pip install '.[peers]')")
                continue
            seconds = time.perf_counter() - started
            got = _answers(run, images)
            table.add_row(
                name,
                f"{seconds:.0f}",
                f"{agreement(wanted, got):.1%}",
                f"{sqnr(wanted, got):.1f} dB",
                f"{(got.argmax(axis=1) == truth).mean():.1%}",
                f"{_top5(got, truth):.1%}",
                f"{(reference - _top5(got, truth)) * 100:.1f}",
            )
        print(f"{len(images)} photos that no quantiser saw, 300 that all saw; {versions()}; {os.cpu_count()} CPUs\n")
        Console(width=140).print(table)


def _answers(run: Run, images: Array) -> Array:
    return np.concatenate([run(images[start : start + 8]) for start in range(0, len(images), 8)])


def _top5(logits: Array, truth: np.ndarray) -> float:
    best = np.argsort(-logits, axis=1)[:, :5]
    return float((best == truth[:, None]).any(axis=1).mean())


if __name__ == "__main__":
    main()
