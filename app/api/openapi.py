"""What /docs says about the routes: bodies that are read as raw streams, headers, and the one error shape."""

from __future__ import annotations

from typing import Any

from tessera.app.api.bodies import ClassifyBody, ErrorBody
from tessera.app.protocol.classify import MOST_EXPLAINED
from tessera.app.scheduling.ticket import Priority
from tessera.models.variant import VARIANTS

VARIANT = {"type": "string", "enum": list(VARIANTS)}

_ANSWER_HEADERS = {
    "X-Request-ID": {"description": "the request's id", "schema": {"type": "string"}},
}

_RETRY_AFTER = {"description": "seconds to wait", "schema": {"type": "integer"}}

ACCEPT_ENCODING = {
    "Accept-Encoding": {
        "description": "the content encodings that a body may have, where the request's was another",
        "schema": {"type": "string"},
    },
}

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    503: {
        "model": ErrorBody,
        "description": "not ready, queue full, deadline out of reach or passed, shutting down; see Retry-After",
        "headers": {
            "Retry-After": _RETRY_AFTER,
            **_ANSWER_HEADERS,
        },
    }
}

# As they are in the document, because they belong to no route.
_ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
FAULT_RESPONSES = {
    "500": {"description": "a fault of the service", "content": _ERROR_CONTENT, "headers": _ANSWER_HEADERS}
}
RATE_RESPONSES = {
    "429": {
        "description": "the client sends more requests than the setting rate_limit allows; see Retry-After",
        "content": _ERROR_CONTENT,
        "headers": {"Retry-After": _RETRY_AFTER, **_ANSWER_HEADERS},
    }
}

QUERY_RESPONSES: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorBody, "description": "the query has a parameter that this path does not take"},
}

CLASSIFY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ClassifyBody,
        "description": "the labels of every image, in the order sent",
        "headers": {
            "X-Model-Variant": {"description": "the variant that answered", "schema": VARIANT},
            **_ANSWER_HEADERS,
        },
    },
    400: {"model": ErrorBody, "description": "empty body, damaged image, malformed multipart or unknown variant"},
    408: {"model": ErrorBody, "description": "the body did not arrive in time"},
    409: {"model": ErrorBody, "description": "the variant's files changed under it, so that it cannot explain"},
    413: {"model": ErrorBody, "description": "body, image or number of images over the limit"},
    415: {
        "model": ErrorBody,
        "description": "not an image of a supported format, or a body with a Content-Encoding",
        "headers": ACCEPT_ENCODING,
    },
    422: {
        "model": ErrorBody,
        "description": "top_k, explain, size, X-Request-Timeout-Ms or X-Priority has no valid value, the query has "
        "another parameter, or the variant explains nothing",
    },
    500: {"model": ErrorBody, "description": "the service or the engine failed"},
    **ERROR_RESPONSES,
}

_IMAGE = {"type": "string", "format": "binary"}

HEADERS: list[dict[str, Any]] = [
    {
        "name": "X-Model-Variant",
        "in": "header",
        "required": False,
        "description": "who answers; absent: the configured split or default",
        "schema": VARIANT,
    },
    {
        "name": "X-Experiment-Key",
        "in": "header",
        "required": False,
        "description": "under a split, requests of the same key get the same variant; such as a user's id",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "required": False,
        "description": "milliseconds after which the answer is worthless; a request that cannot make it is refused "
        "at once with 503. Default and most: the configured timeout",
        "schema": {"type": "integer", "minimum": 1},
    },
    {
        "name": "X-Priority",
        "in": "header",
        "required": False,
        "description": "high goes before normal; background runs when nothing else waits",
        "schema": {"type": "string", "enum": [priority.value for priority in Priority], "default": "normal"},
    },
    {
        "name": "X-Request-ID",
        "in": "header",
        "required": False,
        "description": "an id of yours, up to 128 plain characters; it comes back in the answer and is in the log",
        "schema": {"type": "string"},
    },
]

CLASSIFY_OPENAPI: dict[str, Any] = {
    "parameters": [
        {
            "name": "top_k",
            "in": "query",
            "required": False,
            "description": "how many labels per image, most likely first",
            "schema": {"type": "integer", "minimum": 1, "default": 5},
        },
        {
            "name": "explain",
            "in": "query",
            "required": False,
            "description": "1: every label comes with a heat map, which says where in the image its score comes from; "
            f"for at most {MOST_EXPLAINED} labels, of variants that /v1/models says explain",
            "schema": {"type": "integer", "enum": [0, 1], "default": 0},
        },
        {
            "name": "size",
            "in": "query",
            "required": False,
            "description": "one of the model's sizes in /v1/models that photos are brought to, such as 288, or 224x320 "
            "for height and width; the first unless given",
            "schema": {"type": "string", "pattern": "^[0-9]+(x[0-9]+)?$", "examples": ["224"]},
        },
        *HEADERS,
    ],
    "requestBody": {
        "required": True,
        "description": "one image file as it is (JPEG, PNG, WebP, GIF, BMP, TIFF; any Content-Type), "
        "or a form with one or more images in parts named `file`",
        "content": {
            "application/octet-stream": {"schema": _IMAGE},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": _IMAGE}},
                }
            },
        },
    },
}
