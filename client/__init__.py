"""A client of the service: images in, typed answers out.

Example:
    >>> with Client("http://127.0.0.1:8000") as client:
    ...     print(client.classify("photo.jpg").label)
"""

from tessera.client.answers import Classification, Prediction, Timing
from tessera.client.asynchronous import AsyncClient
from tessera.client.errors import ClientError, NoAnswerError, RefusedError
from tessera.client.images import ImageLike
from tessera.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "ClientError",
    "ImageLike",
    "NoAnswerError",
    "Prediction",
    "RefusedError",
    "Timing",
]
