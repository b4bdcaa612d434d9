"""grpc.reflection: what calls there are, for tools such as grpcurl that have no `.proto` file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from tessera.app.errors import shortened
from tessera.app.oip.grpc.calls import Requests
from tessera.app.oip.grpc.received import Received
from tessera.app.oip.grpc.schema import Schema

# What older tools call the service, whose messages are the same.
FORMER_NAME = "grpc.reflection.v1alpha.ServerReflection"


class ReflectionCalls:
    """Each method is the call of its name.

    Args:
        schema: The messages.
        services: Names of the services that there are.
        requests: What each request has around it.
    """

    def __init__(self, schema: Schema, services: Sequence[str], requests: Requests) -> None:
        self._schema = schema
        self._services = services
        self._requests = requests

    async def ServerReflectionInfo(  # noqa: N802, the protocol names it
        self, requests: AsyncIterator[Received], context: Any
    ) -> AsyncIterator[Any]:
        """Answer one question of a stream after the other; what there is not is an answer too."""
        name = f"{self._schema.service}/ServerReflectionInfo"
        async for received in requests:
            with self._requests.one(name, context, received.size):
                with self._requests.admission():
                    request = received.read()
                answer = self._answer(request)
            yield answer

    def _answer(self, request: Any) -> Any:
        response = self._schema["ServerReflectionResponse"](valid_host=request.host, original_request=request)
        asked = request.WhichOneof("message_request")
        if asked == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
            return response
        try:
            found = self._file(asked, request)
        except KeyError:
            response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
            wanted = getattr(request, asked) if asked is not None else ""
            response.error_response.error_message = f"There is no such thing here: {shortened(str(wanted))}"
            return response
        response.file_descriptor_response.file_descriptor_proto.append(found.serialized_pb)
        return response

    def _file(self, asked: str | None, request: Any) -> Any:
        """The file that is asked for. None of ours imports another, or has extensions.

        Raises:
            KeyError: There is none.
        """
        if asked == "file_by_filename":
            return self._schema.pool.FindFileByName(request.file_by_filename)
        if asked == "file_containing_symbol":
            return self._schema.pool.FindFileContainingSymbol(request.file_containing_symbol)
        raise KeyError(asked)
