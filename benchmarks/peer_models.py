"""The same ResNet-50 for every engine, each quantised by its own tools, on its documented best settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera import engine
from tessera.models.preprocessing.photos import read_photos
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.quantise import quantise_model
from tessera.models.registry import open_model

Array = npt.NDArray[np.float32]
Run = Callable[[Array], Array]

CALIBRATION_PHOTOS = 100


def find_data(given: Path | None) -> Path:
    """The folder of real weights and photos."""
    folder = given or Path(os.environ.get("TESSERA_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
    if not (folder / "resnet50-imagenet").is_dir():
        raise SystemExit(f"There is no resnet50-imagenet in {folder}; point --data or TESSERA_SHARED_DATA at it.")
    return folder


def versions() -> str:
    """Names and versions of the peers that are installed."""
    found = []
    for package in ("onnxruntime", "openvino", "nncf"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


class PeerModels:
    """Builds each engine's model once, into a cache, and opens them all for one batch size and number of threads."""

    def __init__(self, data: Path, cache: Path, ours: Path | None = None) -> None:
        self._data = data
        self._cache = cache
        self._sessions: list[engine.Session] = []
        self._preprocessing = Preprocessing()
        cache.mkdir(parents=True, exist_ok=True)
        model = data / "resnet50-imagenet"
        if ours is None:
            quantise_model(model, data / "imagenet-sample", cache=cache, limit=CALIBRATION_PHOTOS)
        opened = open_model(model, cache=cache)
        self._float = opened.variants["baseline"].path
        self._ours = ours or opened.variants["optimised"].path

    def calibration_photos(self) -> list[Path]:
        """The photos that the peers' quantisers see; the timed ones are others."""
        files = sorted((self._data / "imagenet-sample").glob("*.JPEG"))
        return [files[i * len(files) // CALIBRATION_PHOTOS] for i in range(CALIBRATION_PHOTOS)]

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> Array:
        """Uint8 [N, H, W, 3] to what the networks expect."""
        mean = np.array(self._preprocessing.mean, np.float32)
        std = np.array(self._preprocessing.std, np.float32)
        return np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))

    def open_all(self, batch: int, threads: int, only: list[str] | None) -> dict[str, tuple[Run, str]]:
        """Name to (run, precision) of every engine that is installed and asked for."""
        openers: dict[str, tuple[Callable[[], Run], str]] = {
            "ours-int8": (lambda: self._engine(self._ours, "cpu", threads, "int8"), "int8"),
            "ours-bf16": (lambda: self._engine(self._float, "cpu", threads, "bf16"), "bf16"),
            "ours-fp32": (lambda: self._engine(self._float, "cpu", threads, "fp32"), "fp32"),
            "onnxruntime-fp32": (lambda: self._engine(self._float, "onnxruntime", threads, "auto"), "fp32"),
            "onnxruntime-int8": (
                lambda: self._engine(self._onnxruntime_int8(), "onnxruntime", threads, "auto"),
                "int8",
            ),
            "openvino-int8": (lambda: self._openvino(self.openvino_int8(), batch, threads, None), "int8"),
            "openvino-bf16": (lambda: self._openvino(self._float, batch, threads, "bf16"), "bf16"),
            "openvino-fp32": (lambda: self._openvino(self._float, batch, threads, "f32"), "fp32"),
        }
        opened = {}
        for name, (opener, precision) in openers.items():
            if only is not None and name not in only:
                continue
            try:
                opened[name] = (opener(), precision)
            except ImportError as error:
                print(f"{name} is left out: {error} (pip install '.[peers]')")
        return opened

    def close(self) -> None:
        """Frees our own and ONNX Runtime's sessions."""
        while self._sessions:
            self._sessions.pop().close()

    def _engine(self, path: Path, backend: Any, threads: int, precision: Any) -> Run:
        session = engine.load(path, backend=backend, threads=threads, precision=precision)
        self._sessions.append(session)
        return session.run

    def _openvino(self, path: Path, batch: int, threads: int, precision: str | None) -> Run:
        """Static batch, latency hint, one stream: its fastest setting for one request at a time."""
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape([batch, 3, 224, 224])
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        if precision:
            settings["INFERENCE_PRECISION_HINT"] = precision
        request = core.compile_model(model, "CPU", settings).create_infer_request()

        def run(images: Array) -> Array:
            request.infer({0: images}, share_inputs=True)
            output: Array = request.get_output_tensor().data
            return output.copy()

        return run

    def _calibration_images(self) -> Iterator[Array]:
        return read_photos(self.calibration_photos(), self._preprocessing, batch=1)

    def openvino_int8(self) -> Path:
        """NNCF's defaults: mixed preset for CNNs, fast bias correction."""
        path = self._cache / "openvino-int8.xml"
        if not path.exists():
            import nncf
            import openvino

            dataset = nncf.Dataset(list(self._calibration_images()))
            quantised = nncf.quantize(openvino.Core().read_model(self._float), dataset, subset_size=CALIBRATION_PHOTOS)
            openvino.save_model(quantised, path)
        return path

    def _onnxruntime_int8(self) -> Path:
        """ONNX Runtime's own advice for x86 with VNNI: QDQ, signed weights per channel, shape inference first."""
        path = self._cache / "onnxruntime-int8.onnx"
        if not path.exists():
            from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
            from onnxruntime.quantization.shape_inference import quant_pre_process

            class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no type information
                def __init__(self, images: Iterator[Array]) -> None:
                    self._images = images

                def get_next(self) -> dict[str, Array] | None:
                    image = next(self._images, None)
                    return None if image is None else {"input": image}

            prepared = self._cache / "onnxruntime-prepared.onnx"
            quant_pre_process(str(self._float), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(path),
                Reader(self._calibration_images()),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return path
