"""A message from a client, as the wire brings it: its cost is counted before protobuf makes objects of it."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from tessera.app.errors import InvalidInferenceRequestError
from tessera.wording import counted

# A message of ours has a dozen fields, and one for each image file at most.
_MOST_FIELDS = 8192
_MOST_TEXT = 64 * 1024  # bytes of a name or an id
_MOST_NUMBERS = 48 * 1024 * 1024  # bytes that packed numbers of one byte each may become

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)  # protobuf's wire types
_SKIPPED = {_FIXED64: 8, _GROUP: 0, _END_GROUP: 0, _FIXED32: 4}
# What a packed number of one byte becomes: protobuf doubles its arrays, and keeps the former ones until the end.
_SIZES = {
    FieldDescriptor.CPPTYPE_INT32: 8,
    FieldDescriptor.CPPTYPE_UINT32: 8,
    FieldDescriptor.CPPTYPE_ENUM: 8,
    FieldDescriptor.CPPTYPE_INT64: 16,
    FieldDescriptor.CPPTYPE_UINT64: 16,
}


class Received:
    """Bytes of a message that has not been looked at yet.

    Args:
        kind: Its class.
        data: Its bytes.

    Attributes:
        size: How many they are.
    """

    def __init__(self, kind: Any, data: bytes) -> None:
        self._kind = kind
        self._data = data
        self.size = len(data)

    def read(self) -> Any:
        """Return the message; once, because the bytes are not kept beside it.

        Raises:
            InvalidInferenceRequestError: It is malformed, or made of so many small parts that it would take many times
                its bytes.
        """
        data, self._data = self._data, b""
        try:
            _Cost().add(memoryview(data), self._kind.DESCRIPTOR)
            return self._kind.FromString(data)
        except (DecodeError, IndexError, RecursionError):
            raise InvalidInferenceRequestError(
                f"What was received, {counted(len(data), 'byte')}, is not a message {self._kind.DESCRIPTOR.name}."
            ) from None


class _Cost:
    """What a message would take, counted along its wire format (protobuf's documentation, "Encoding")."""

    def __init__(self) -> None:
        self._fields = 0
        self._numbers = 0

    def add(self, data: memoryview, descriptor: Descriptor) -> None:
        """Count a message.

        Raises:
            InvalidInferenceRequestError: It is too much.
            IndexError: It is malformed.
        """
        at = 0
        while at < len(data):
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise InvalidInferenceRequestError(
                    f"The message has more than {_MOST_FIELDS} fields; send tensors in raw_input_contents."
                )
            key, at = _varint(data, at)
            wire_type = key & 7
            if wire_type == _VARINT:
                _, at = _varint(data, at)
            elif wire_type == _BYTES:
                length, at = _varint(data, at)
                if at + length > len(data):
                    raise IndexError
                field = descriptor.fields_by_number.get(key >> 3)
                if field is not None:
                    self._add_field(data[at : at + length], field)
                at += length
            elif wire_type in _SKIPPED:
                at += _SKIPPED[wire_type]
            else:
                raise IndexError

    def _add_field(self, data: memoryview, field: FieldDescriptor) -> None:
        if field.message_type is not None:
            self.add(data, field.message_type)
        elif field.type == FieldDescriptor.TYPE_STRING and len(data) > _MOST_TEXT:
            raise InvalidInferenceRequestError(
                f"The field {field.name} has {len(data)} bytes; at most {_MOST_TEXT} are read."
            )
        elif field.cpp_type in _SIZES:
            self._numbers += _SIZES[field.cpp_type] * len(data)
            if self._numbers > _MOST_NUMBERS:
                raise InvalidInferenceRequestError(
                    f"The {len(data)} bytes of {field.name} are too many numbers; send tensors in raw_input_contents."
                )


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError
