"""The bodies of the model repository extension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tessera.app.errors import InvalidInferenceRequestError
from tessera.app.oip.wire.envelope import parse_json


def parse_index_request(body: bytes) -> bool:
    """Whether only ready models are wanted; an empty body wants all.

    Raises:
        InvalidInferenceRequestError: The body is not what the protocol says.
    """
    ready = _document(body).get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidInferenceRequestError("The key ready must be true or false.")
    return ready


def parse_repository_parameters(body: bytes) -> Mapping[str, Any]:
    """The parameters of a load or unload request; none for an empty body.

    Raises:
        InvalidInferenceRequestError: The body is not what the protocol says.
    """
    parameters = _document(body).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidInferenceRequestError("The request's parameters must be a JSON object.")
    return parameters


def _document(body: bytes) -> Mapping[str, Any]:
    if not body.strip():
        return {}
    document = parse_json(body)
    if not isinstance(document, dict):
        raise InvalidInferenceRequestError("The request must be a JSON object.")
    return document
