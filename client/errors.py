"""Why there is no answer.

The tree::

    ClientError
    ├── RefusedError        the service answered with an error, which trying again does not mend
    └── NoAnswerError       nothing came before the deadline

What cannot be sent, such as a file that is not there or an array of floats, is an OSError, a TypeError or a ValueError.
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of every error of the client."""


class RefusedError(ClientError):
    """The service answered with an error.

    Attributes:
        status: The HTTP status.
        code: The service's word for it, such as `corrupt_image`; empty where something else answered, such as a proxy.
        request_id: Finds the request in the service's log.
    """

    def __init__(self, message: str, status: int, code: str, request_id: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id


class NoAnswerError(ClientError):
    """The time is over: the service was not reached, or was busy or restarting all the time; the message says which."""
