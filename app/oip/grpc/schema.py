"""Message classes of the `.proto` files, from their compiled descriptors in `proto/descriptors.binpb`.

The messages live in a descriptor pool of their own, so that a client library with the same message names fits the same
process. `make descriptors` compiles them anew after a change to a `.proto` file; a test fails until it has.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


class Call(NamedTuple):
    """One call of a service.

    Attributes:
        request: Message class of the request.
        response: Message class of the response.
        client_streams: Whether the client sends a stream.
        server_streams: Whether the server answers with a stream.
    """

    request: Any
    response: Any
    client_streams: bool
    server_streams: bool


class Schema:
    """The messages and calls of one `.proto` file.

    Args:
        name: The file's name.

    Attributes:
        service: Full name of the file's service.
        calls: Its calls by name.
        pool: Where the descriptors of all files are.
    """

    def __init__(self, name: str) -> None:
        compiled = resources.files("tessera.app.oip.grpc.proto").joinpath("descriptors.binpb").read_bytes()
        pool = self.pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
            pool.AddSerializedFile(file.SerializeToString())
        descriptor: Any = pool.FindFileByName(name)
        self._messages: dict[str, Any] = {
            message.name: message_factory.GetMessageClass(message)
            for message in descriptor.message_types_by_name.values()
        }
        (service,) = descriptor.services_by_name.values()
        self.service: str = service.full_name
        self.calls = {
            method.name: Call(
                self[method.input_type.name],
                self[method.output_type.name],
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        }

    def __getitem__(self, name: str) -> Any:
        """The class of a top-level message, by its name."""
        return self._messages[name]
