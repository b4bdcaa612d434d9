"""Requests of the Open Inference Protocol, for its tests: with tritonclient and by hand."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import tritonclient.http as triton

from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.preprocessing.transform import Preprocessing
from tests import imagefiles

MODEL = "resnet50-imagenette"
PATH = f"/v2/models/{MODEL}"
VARIANTS = ("baseline", "optimised")
FILES = [imagefiles.jpeg(), imagefiles.png(300, 400), imagefiles.KINDS["webp"]()]
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def pixels() -> np.ndarray:
    """The files as uint8 [N, 224, 224, 3], decoded as the service does."""
    rows = np.empty((len(FILES), 224, 224, 3), np.uint8)
    for data, row in zip(FILES, rows, strict=True):
        ImageDecoder(Preprocessing(), max_pixels=10**6).decode(data, row)
    return rows


def normalised() -> np.ndarray:
    return np.ascontiguousarray(((pixels() / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


def tensor(values: np.ndarray, *, binary: bool = True, module: Any = triton) -> Any:
    datatype = {"float32": "FP32", "uint8": "UINT8", "object": "BYTES"}[values.dtype.name]
    made = module.InferInput("input", values.shape, datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def files() -> np.ndarray:
    return np.array(FILES, dtype=object)


def scores(client: triton.InferenceServerClient, values: np.ndarray, variant: str, **options: Any) -> np.ndarray:
    result = client.infer(MODEL, [tensor(values)], headers={"X-Model-Variant": variant}, **options).as_numpy("output")
    assert result.dtype == np.float32
    assert result.shape == (len(values), 10)
    return result


def infer_json(**entry: Any) -> bytes:
    base = {"name": "input", "datatype": "UINT8", "shape": [1, 224, 224, 3], "data": []}
    return json.dumps({"inputs": [{**base, **entry}]}).encode()


def binary_request(values: np.ndarray, datatype: str, **parameters: Any) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "input", "datatype": datatype, "shape": list(values.shape)}
    entry["parameters"] = {"binary_data_size": values.nbytes}
    header = json.dumps({"inputs": [entry], "parameters": parameters}).encode()
    return header + values.tobytes(), {"Inference-Header-Content-Length": str(len(header))}


def packed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def bytes_request(*data: bytes, shape: list[int] | None = None) -> tuple[bytes, dict[str, str]]:
    payload = b"".join(packed(part) for part in data)
    entry = {"name": "input", "datatype": "BYTES", "shape": shape or [len(data)]}
    entry["parameters"] = {"binary_data_size": len(payload)}
    header = json.dumps({"inputs": [entry]}).encode()
    return header + payload, {"Inference-Header-Content-Length": str(len(header))}
