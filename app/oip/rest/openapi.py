"""What /docs says about infer requests, whose bodies are read as raw streams."""

from __future__ import annotations

from typing import Any

from tessera.app.api.bodies import ErrorBody
from tessera.app.api.openapi import ACCEPT_ENCODING, ERROR_RESPONSES, HEADERS, VARIANT
from tessera.app.oip.rest.bodies import InferBody

INFER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the outputs: JSON, or JSON with binary tensors behind it as the request asks",
        "model": InferBody,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Model-Variant": {"description": "the variant that answered", "schema": VARIANT},
            "Inference-Header-Content-Length": {
                "description": "bytes of JSON at the start of a binary answer",
                "schema": {"type": "integer"},
            },
        },
    },
    400: {
        "model": ErrorBody,
        "description": "tensors, images, parameters or size are not what the model takes; shared memory; another "
        "Content-Encoding than gzip or deflate",
        "headers": ACCEPT_ENCODING,
    },
    404: {"model": ErrorBody, "description": "no such model, or no such version of it"},
    500: {"model": ErrorBody, "description": "the service or the engine failed"},
    **ERROR_RESPONSES,
}

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": ["FP32", "UINT8", "BYTES"]},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}

INFER_OPENAPI: dict[str, Any] = {
    "parameters": [
        *HEADERS,
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "description": "bytes of JSON before the binary tensors; 0: the body is the data of the only input",
            "schema": {"type": "integer", "minimum": 0},
        },
    ],
    "requestBody": {
        "required": True,
        "description": "an infer request of the Open Inference Protocol; any Content-Type",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
                        "outputs": {"type": "array", "items": {"type": "object"}},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
