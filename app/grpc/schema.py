"""Message classes from the `.proto` files beside it, made when the module is imported.

No generated code and no protobuf compiler: the files use a small part of the language, which is read here. The messages
live in a descriptor pool of their own, so that a client library with the same message names fits the same process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto

_TOKEN = re.compile(r'//[^\n]*|"[^"]*"|[\w.]+|[{}<>=;,()]')
_SCALARS: dict[str, FieldDescriptorProto.Type.ValueType] = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}


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
    """

    def __init__(self, name: str) -> None:
        text = resources.files("app.grpc.proto").joinpath(name).read_text(encoding="utf-8")
        parsed = _Reader(text).file(name)
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(parsed.SerializeToString())
        descriptor: Any = pool.FindFileByName(name)
        self._messages: dict[str, Any] = {
            message.name: message_factory.GetMessageClass(message)
            for message in descriptor.message_types_by_name.values()
        }
        (service,) = parsed.service
        self.service = f"{parsed.package}.{service.name}"
        self.calls = {
            method.name: Call(
                self[method.input_type], self[method.output_type], method.client_streaming, method.server_streaming
            )
            for method in service.method
        }

    def __getitem__(self, name: str) -> Any:
        """The class of a top-level message, by its name with or without the package."""
        return self._messages[name.rpartition(".")[2]]


class _Reader:
    """Reads the part of the language that our files use: messages, enums, oneofs, maps and one service."""

    def __init__(self, text: str) -> None:
        self._tokens: Iterator[str] = (t for t in _TOKEN.findall(text) if not t.startswith("//"))
        self._package = ""

    def file(self, name: str) -> descriptor_pb2.FileDescriptorProto:
        """Read the whole text."""
        result = descriptor_pb2.FileDescriptorProto(name=name)
        for token in self._tokens:
            if token == "syntax":
                self._expect("=")
                result.syntax = next(self._tokens).strip('"')
                self._expect(";")
            elif token == "package":
                result.package = self._package = next(self._tokens)
                self._expect(";")
            elif token == "message":
                self._message(result.message_type.add(), self._package)
            elif token == "enum":
                self._enum(result.enum_type.add())
            elif token == "service":
                self._service(result.service.add())
            else:
                raise ValueError(f"{name}: unexpected {token!r}")
        _resolve(result)
        return result

    def _message(self, message: DescriptorProto, scope: str) -> None:
        message.name = next(self._tokens)
        full_name = f"{scope}.{message.name}"
        self._expect("{")
        while (token := next(self._tokens)) != "}":
            if token == "message":
                self._message(message.nested_type.add(), full_name)
            elif token == "enum":
                self._enum(message.enum_type.add())
            elif token == "oneof":
                self._oneof(message)
            elif token == "map":
                self._map(message, full_name)
            else:
                self._field(message, token)

    def _field(self, message: DescriptorProto, token: str) -> FieldDescriptorProto:
        field = message.field.add(label=FieldDescriptorProto.LABEL_OPTIONAL)
        if token == "repeated":
            field.label = FieldDescriptorProto.LABEL_REPEATED
            token = next(self._tokens)
        _set_type(field, token)
        field.name = next(self._tokens)
        self._number(field)
        return field

    def _oneof(self, message: DescriptorProto) -> None:
        message.oneof_decl.add(name=next(self._tokens))
        self._expect("{")
        while (token := next(self._tokens)) != "}":
            self._field(message, token).oneof_index = len(message.oneof_decl) - 1

    def _map(self, message: DescriptorProto, full_name: str) -> None:
        """A map is a repeated message of key and value (Protocol Buffers language guide, "Maps")."""
        self._expect("<")
        key = next(self._tokens)
        self._expect(",")
        value = next(self._tokens)
        self._expect(">")
        field = message.field.add(label=FieldDescriptorProto.LABEL_REPEATED, name=next(self._tokens))
        entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        for number, (name, kind) in enumerate((("key", key), ("value", value)), start=1):
            part = entry.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
            _set_type(part, kind)
        field.type_name = f".{full_name}.{entry.name}"
        self._number(field)

    def _enum(self, enum: EnumDescriptorProto) -> None:
        enum.name = next(self._tokens)
        self._expect("{")
        while (token := next(self._tokens)) != "}":
            self._expect("=")
            enum.value.add(name=token, number=int(next(self._tokens)))
            self._expect(";")

    def _service(self, service: descriptor_pb2.ServiceDescriptorProto) -> None:
        service.name = next(self._tokens)
        self._expect("{")
        while next(self._tokens) != "}":
            method = service.method.add(name=next(self._tokens))
            method.input_type, method.client_streaming = self._argument()
            self._expect("returns")
            method.output_type, method.server_streaming = self._argument()
            self._expect(";")

    def _argument(self) -> tuple[str, bool]:
        self._expect("(")
        name = next(self._tokens)
        streams = name == "stream"
        if streams:
            name = next(self._tokens)
        self._expect(")")
        return f".{self._package}.{name}", streams

    def _number(self, field: FieldDescriptorProto) -> None:
        self._expect("=")
        field.number = int(next(self._tokens))
        self._expect(";")

    def _expect(self, token: str) -> None:
        found = next(self._tokens)
        if found != token:
            raise ValueError(f"expected {token!r}, found {found!r}")


def _set_type(field: FieldDescriptorProto, name: str) -> None:
    if name in _SCALARS:
        field.type = _SCALARS[name]
    else:
        field.type_name = name


def _resolve(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Give every reference to a message or an enum its full name and kind; inner names win over outer ones."""
    kinds: dict[str, FieldDescriptorProto.Type.ValueType] = {}

    def collect(scope: str, messages: Any, enums: Any) -> None:
        for enum in enums:
            kinds[f"{scope}.{enum.name}"] = FieldDescriptorProto.TYPE_ENUM
        for message in messages:
            kinds[f"{scope}.{message.name}"] = FieldDescriptorProto.TYPE_MESSAGE
            collect(f"{scope}.{message.name}", message.nested_type, message.enum_type)

    def resolve(scope: str, messages: Any) -> None:
        for message in messages:
            inner = f"{scope}.{message.name}"
            for field in message.field:
                if field.type_name:
                    field.type_name = _find(field.type_name, inner, kinds)
                    field.type = kinds[field.type_name]
            resolve(inner, message.nested_type)

    collect(f".{file.package}", file.message_type, file.enum_type)
    resolve(f".{file.package}", file.message_type)


def _find(name: str, scope: str, known: Any) -> str:
    if name.startswith("."):
        return name
    while scope:
        if f"{scope}.{name}" in known:
            return f"{scope}.{name}"
        scope = scope.rpartition(".")[0]
    raise ValueError(f"there is no message or enum {name}")
