"""Every error the service reports on purpose.

The tree; each leaf carries the HTTP status and the machine-readable code that a client sees::

    TesseraError
    ├── StartupError                        the service cannot start (exit code 1)
    │   └── ConfigFileError                 the configuration file cannot be used (exit code 2)
    └── RequestError                        one request cannot be answered
        ├── EmptyBodyError                  400 empty_body
        ├── CorruptImageError               400 corrupt_image
        ├── MalformedMultipartError         400 malformed_multipart
        ├── NoFilesError                    400 no_files
        ├── UnknownVariantError             400 unknown_variant
        ├── InvalidHttpError                400 invalid_http
        ├── InvalidInferenceRequestError    400 invalid_inference_request
        ├── UnsupportedOperationError       400 unsupported
        ├── PreflightError                  400 preflight_refused
        ├── ClientDisconnectedError         400 client_disconnected
        ├── UnauthorisedError               401 unauthorised
        ├── ForbiddenError                  403 forbidden
        ├── NotFoundError                   404 not_found
        │   └── UnknownModelError           404 unknown_model
        ├── MethodNotAllowedError           405 method_not_allowed
        ├── BodyTimeoutError                408 body_timeout
        ├── LoadFailedError                 409 load_failed
        ├── BodyTooLargeError               413 body_too_large
        ├── ImageTooLargeError              413 image_too_large
        ├── TooManyImagesError              413 too_many_images
        ├── UnsupportedImageError           415 unsupported_image
        ├── UnsupportedEncodingError        415 unsupported_encoding
        ├── InvalidParameterError           422 invalid_parameter
        ├── UnknownParameterError           422 unknown_parameter
        ├── UnexplainableError              422 unexplainable
        ├── RateLimitedError                429 rate_limited
        ├── TooManyHeadersError             431 too_many_headers
        ├── InternalError                   500 internal_error
        │   └── InferenceError              500 inference_failed
        ├── NotReadyError                   503 not_ready
        │   └── ModelUnavailableError       503 model_unavailable
        ├── QueueFullError                  503 queue_full
        ├── TooManyUploadsError             503 too_many_uploads
        ├── TooManyConnectionsError         503 too_many_connections
        ├── DeadlineUnreachableError        503 deadline_unreachable
        ├── EngineLostError                 503 engine_lost
        ├── DeviceFailedError               503 device_failed
        ├── ShuttingDownError               503 shutting_down
        └── DeadlineExceededError           503 deadline_exceeded

A 500 is a fault of ours, and there is no other 5xx than 503: whatever may pass if the client tries again.

A subclass is data only: the handlers in `app/api/handlers.py` turn `status`, `code` and `retry_after` into the
response, so that a new error needs no new code path.
"""

from __future__ import annotations

from typing import ClassVar

_MOST_MESSAGE = 1000  # characters; the sentences themselves stay far below


def shortened(text: str, most: int = 80) -> str:
    """A text that a client has given, cut after `most` characters where it is longer."""
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(text: str, most: int = 80) -> str:
    """A text that a client has given, in quotes for a sentence; see `shortened`."""
    return repr(shortened(text, most))


class TesseraError(Exception):
    """Base of every error that the service raises on purpose."""


class StartupError(TesseraError):
    """The service cannot start; the message says why and what to do."""


class ConfigFileError(StartupError):
    """The file with settings cannot be read, or has something in it that is no setting."""


class RequestError(TesseraError):
    """One request cannot be answered.

    Args:
        message: A plain sentence for the client: what is wrong and, where it helps, what to do.
        retry_after: Whole seconds after which trying again makes sense; sent as `Retry-After`.
        allow: The permitted methods; sent as `Allow`.
        accept_encoding: The permitted content encodings; sent as `Accept-Encoding`.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        retry_after: int | None = None,
        allow: str | None = None,
        accept_encoding: str | None = None,
    ) -> None:
        super().__init__(message)
        # Code that quotes a client shortens the quotation. This bounds a message where it forgot to.
        self.message = message if len(message) <= _MOST_MESSAGE else f"{message[:_MOST_MESSAGE]}... (shortened)."
        self.retry_after = retry_after
        self.allow = allow
        self.accept_encoding = accept_encoding

    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.allow is not None:
            headers["Allow"] = self.allow
        if self.accept_encoding is not None:
            headers["Accept-Encoding"] = self.accept_encoding
        return headers

    def about(self, subject: str) -> RequestError:
        """Return the same error with `subject` (such as a file's name) in front of its message."""
        return type(self)(f"{subject}: {self.message}", retry_after=self.retry_after, allow=self.allow)


class EmptyBodyError(RequestError):
    """The body, or one file in it, holds no bytes."""

    status = 400
    code = "empty_body"


class CorruptImageError(RequestError):
    """The bytes start like an image but cannot be decoded to the end."""

    status = 400
    code = "corrupt_image"


class MalformedMultipartError(RequestError):
    """The body is not what its multipart Content-Type says."""

    status = 400
    code = "malformed_multipart"


class NoFilesError(RequestError):
    """The multipart body holds no part named `file`."""

    status = 400
    code = "no_files"


class UnknownVariantError(RequestError):
    """`X-Model-Variant` names no variant of the model."""

    status = 400
    code = "unknown_variant"


class InvalidHttpError(RequestError):
    """What arrived is not HTTP, or its headers are beyond measure."""

    status = 400
    code = "invalid_http"


class InvalidInferenceRequestError(RequestError):
    """A request of the Open Inference Protocol contradicts the protocol, or the model's inputs and outputs."""

    status = 400
    code = "invalid_inference_request"


class UnsupportedOperationError(RequestError):
    """The protocol knows this operation; this service does not offer it."""

    status = 400
    code = "unsupported"


class PreflightError(RequestError):
    """A browser asks for a web page whether it may send a request, and it may not."""

    status = 400
    code = "preflight_refused"


class ClientDisconnectedError(RequestError):
    """The client left before the answer was ready. This answer is not read; metrics and logs count it."""

    status = 400
    code = "client_disconnected"


class UnauthorisedError(RequestError):
    """An admin verb without the right bearer token."""

    status = 401
    code = "unauthorised"

    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        return {**super().headers(), "WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """An admin verb while these are off, or from where they are not answered."""

    status = 403
    code = "forbidden"


class NotFoundError(RequestError):
    """No such path."""

    status = 404
    code = "not_found"


class UnknownModelError(NotFoundError):
    """No model, or no version of it, has this name."""

    code = "unknown_model"


class MethodNotAllowedError(RequestError):
    """The path exists, but not with this method."""

    status = 405
    code = "method_not_allowed"


class BodyTimeoutError(RequestError):
    """The client sent its body too slowly."""

    status = 408
    code = "body_timeout"

    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error: the rest of the body is not read."""
        return {**super().headers(), "Connection": "close"}


class LoadFailedError(RequestError):
    """A variant cannot be loaded from its files as they are; whatever answered before goes on."""

    status = 409
    code = "load_failed"


class BodyTooLargeError(RequestError):
    """The body is over the size limit; the rest of it is not read."""

    status = 413
    code = "body_too_large"


class ImageTooLargeError(RequestError):
    """The image's header declares more pixels than the limit; nothing was decoded."""

    status = 413
    code = "image_too_large"


class TooManyImagesError(RequestError):
    """One request carries more images than the limit."""

    status = 413
    code = "too_many_images"


class UnsupportedImageError(RequestError):
    """The bytes are not an image, or of a kind that has no defined 8-bit reading."""

    status = 415
    code = "unsupported_image"


class UnsupportedEncodingError(RequestError):
    """The body has a Content-Encoding that is not undone here; `Accept-Encoding` says which are (RFC 9110, 15.5.16)."""

    status = 415
    code = "unsupported_encoding"


class InvalidParameterError(RequestError):
    """A query parameter or a header has no valid value."""

    status = 422
    code = "invalid_parameter"


class UnknownParameterError(RequestError):
    """The query has a parameter that the path does not take; ignoring it would answer another question."""

    status = 422
    code = "unknown_parameter"


class UnexplainableError(RequestError):
    """The variant cannot say where its scores come from: its network has another end, or runs on an accelerator."""

    status = 422
    code = "unexplainable"


class RateLimitedError(RequestError):
    """The client sends more requests per second than one client may."""

    status = 429
    code = "rate_limited"


class TooManyHeadersError(RequestError):
    """The request has more header lines than the limit."""

    status = 431
    code = "too_many_headers"


class InternalError(RequestError):
    """An error of the service itself; its cause is in the log under the request id, never in the answer."""

    status = 500
    code = "internal_error"


class InferenceError(InternalError):
    """The engine failed on this very image."""

    code = "inference_failed"


class NotReadyError(RequestError):
    """The model is still being built, loaded or warmed."""

    status = 503
    code = "not_ready"


class ModelUnavailableError(NotReadyError):
    """The model is known and not loaded now."""

    code = "model_unavailable"


class QueueFullError(RequestError):
    """The queue of images has no room for this request."""

    status = 503
    code = "queue_full"


class TooManyUploadsError(RequestError):
    """The bodies of all requests in flight together are over the limit."""

    status = 503
    code = "too_many_uploads"


class TooManyConnectionsError(RequestError):
    """More connections are open than the limit; this one is closed after the answer."""

    status = 503
    code = "too_many_connections"


class DeadlineUnreachableError(RequestError):
    """By the measured speed and backlog the answer would come too late, so the work is not begun."""

    status = 503
    code = "deadline_unreachable"


class EngineLostError(RequestError):
    """The engine process died while it ran this request, and again when it ran it alone; or none came in time."""

    status = 503
    code = "engine_lost"


class DeviceFailedError(RequestError):
    """The accelerator failed on this request, and no other could take it; it is being set up again."""

    status = 503
    code = "device_failed"


class ShuttingDownError(RequestError):
    """The service is stopping and takes no new work."""

    status = 503
    code = "shutting_down"

    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error: a kept connection would lead the next request here again."""
        return {**super().headers(), "Connection": "close"}


class DeadlineExceededError(RequestError):
    """The answer was not ready by the request's deadline."""

    status = 503
    code = "deadline_exceeded"
