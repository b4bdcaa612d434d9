"""Whole examples for the OpenAPI document: answers as a service gave them, and an error for every status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tessera.app.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    EmptyBodyError,
    ForbiddenError,
    InternalError,
    InvalidInferenceRequestError,
    InvalidParameterError,
    LoadFailedError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    RateLimitedError,
    RequestError,
    UnauthorisedError,
    UnknownModelError,
    UnknownParameterError,
    UnsupportedImageError,
)

# By method and path; an answer about a version is that about its model.
_ANSWERS = Path(__file__).with_name("examples.json")
_VERSION = "/versions/{version}"
_REQUEST_ID = "a75235d1b6234abcb1f3d40f471fb989"

_ERRORS: tuple[RequestError, ...] = (
    EmptyBodyError("The body is empty; send one image, or a form with images in parts named 'file'."),
    UnauthorisedError("Admin verbs need the header 'Authorization: Bearer' with the service's token."),
    ForbiddenError("Admin verbs are off; the setting 'admin' and a token switch them on."),
    UnknownModelError("Request for unknown model: 'nothing' is not found; there are: resnet50-imagenette."),
    BodyTimeoutError("The body did not arrive within 30.0 s."),
    LoadFailedError("The variant 'optimised' cannot be loaded: optimised.onnx is damaged."),
    BodyTooLargeError("The body is larger than the limit of 33554432 bytes."),
    UnsupportedImageError("The data is not an image of any of these formats: JPEG, PNG, WEBP, GIF, BMP, TIFF."),
    UnknownParameterError("This path has no query parameter 'x'; it takes none."),
    RateLimitedError("One client may send 10 requests per second; try again in 1 s."),
    InternalError("The service failed; its log says why, under the request id."),
    QueueFullError("The queue is full: 128 of 128 images are waiting and the request has 1. Try again in 1 s."),
)
_NOT_READY = NotReadyError("The model is not ready yet: loading optimised, 50%.")

# Where a status means something else.
_ELSEWHERE: dict[str, tuple[RequestError, ...]] = {
    "POST /v1/classify": (InvalidParameterError("top_k must be a whole number from 1 to 10, the model's classes."),),
    "GET /v1/profile": (
        NotFoundError("There is no profile yet: it is taken once nobody has asked for anything for some seconds."),
        _NOT_READY,
    ),
    "POST /v2/models/{model}/infer": (
        InvalidInferenceRequestError("Input 'input' has values that are not finite, or outside -65504 to 65504."),
    ),
    "GET /readyz": (_NOT_READY,),
    "GET /v2/health/ready": (_NOT_READY,),
    "GET /v2/models/{model}/ready": (_NOT_READY,),
}


def add_examples(document: dict[str, Any]) -> None:
    """Put an example beside the schema of every answer in JSON of an OpenAPI document, in place."""
    answers = json.loads(_ANSWERS.read_text("utf-8"))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path.replace(_VERSION, '')}"
            errors = {str(error.status): _body(error) for error in (*_ERRORS, *_ELSEWHERE.get(name, ()))}
            for status, answer in operation["responses"].items():
                content = answer.get("content", {}).get("application/json")
                if content is not None:
                    found = answers.get(name) if status == "200" else errors.get(status)
                    if found is not None:
                        # Answers of several statuses have one content.
                        answer["content"] = {**answer["content"], "application/json": {**content, "example": found}}


def _body(error: RequestError) -> dict[str, str]:
    return {"error": error.message, "code": error.code, "request_id": _REQUEST_ID}
