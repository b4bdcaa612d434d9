"""Pickles of PyTorch, read as data: nothing that a pickle names is imported, and nothing in it is called.

A pickle is a program for a stack machine. This one runs the opcodes that plain data and tensors need, takes what it
does not know as an `Opaque` value, and is bounded by the pickle's own length in time and memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tessera.engine.errors import ModelError

# The pickle of a ResNet-152 with its optimiser has about half of this. An opcode of one byte can cost some 70 bytes.
LARGEST_PICKLE = 4 << 20


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; never looked up."""

    text: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in a record of its own.

    Attributes:
        kind: PyTorch's class of it, like "FloatStorage".
        key: name of the record.
        count: how many numbers it claims to hold.
    """

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a view of a storage; offset and strides in elements. Nothing has been checked against the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Opaque:
    """A value that is not data: what a call would have made. It can be stored, and that is all."""


_OPAQUE = Opaque()
_DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict"}
_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}


def read_pickle(data: bytes) -> Any:
    """The value that a pickle describes.

    Returns:
        dicts, lists, tuples, texts, numbers, True, False and None, with `StoredTensor` for tensors and `Name`,
        `Storage` or `Opaque` for everything else. Dicts keep only entries whose keys are texts.

    Raises:
        ModelError: it is damaged, too large, or uses an opcode that PyTorch does not write.
    """
    if len(data) > LARGEST_PICKLE:
        raise ModelError(f"its pickle has {len(data)} bytes; at most {LARGEST_PICKLE} are read")
    return _Machine(data).run()


class _Machine:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        while (code := self._take(1)) != b".":
            action = _ACTIONS.get(code)
            if action is None:
                raise ModelError(f"its pickle uses opcode 0x{code.hex()}, which PyTorch does not write")
            action(self)
        return self.pop()

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise ModelError("its pickle ends early")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack:
            raise ModelError("its pickle is damaged: it takes a value where there is none")
        return self._stack.pop()

    def repeat(self) -> None:
        value = self.pop()
        self._stack += [value, value]

    def mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def pop_marked(self) -> list[Any]:
        if not self._outer:
            raise ModelError("its pickle is damaged: it ends a group that was not begun")
        items, self._stack = self._stack, self._outer.pop()
        return items

    def text(self, form: str) -> None:
        try:
            self.push(self._take(self.number(form)).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise ModelError("its pickle is damaged: a text is not UTF-8") from error

    def octets(self, form: str) -> None:
        self.push(self._take(self.number(form)))

    def long(self) -> None:
        self.push(int.from_bytes(self._take(self.number("<B")), "little", signed=True))

    def real(self) -> None:
        self.push(struct.unpack(">d", self._take(8))[0])

    def global_name(self) -> None:
        lines = []
        for _ in range(2):
            end = self._data.find(b"\n", self._position)
            if end < 0:
                raise ModelError("its pickle ends early")
            lines.append(self._take(end + 1 - self._position)[:-1].decode("utf-8", "replace"))
        self.push(Name(".".join(lines)))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        is_named = isinstance(name, str) and isinstance(module, str)
        self.push(Name(f"{module}.{name}") if is_named else _OPAQUE)

    def put(self, key: int) -> None:
        value = self.pop()
        self._memo[key] = value
        self.push(value)

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, key: int) -> None:
        if key not in self._memo:
            raise ModelError("its pickle is damaged: it recalls a value that was not kept")
        self.push(self._memo[key])

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def marked_tuple(self) -> None:
        items = self.pop_marked()
        self.push(tuple(items))

    def append(self, items: list[Any]) -> None:
        target = self.pop()
        if isinstance(target, list):
            target.extend(items)
        self.push(target)

    def set_items(self, items: list[Any]) -> None:
        target = self.pop()
        if len(items) % 2:
            raise ModelError("its pickle is damaged: a key without a value")
        if isinstance(target, dict):
            target.update(
                (key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str)
            )
        self.push(target)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def persistent(self) -> None:
        match self.pop():
            case ("storage", Name(text=kind), str(key), _, int(count)):
                self.push(Storage(kind.rpartition(".")[2], key, count))
            case _:
                raise ModelError("its pickle refers to a record that is not a tensor's storage")

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(_made(function, arguments))

    def new_object(self) -> None:
        self.pop()
        self.pop()
        self.push(_OPAQUE)

    def build(self) -> None:
        """The state of an object; for a dict it is the metadata that PyTorch hangs on state dicts."""
        self.pop()


def _made(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        return _OPAQUE
    if function.text in _DICTIONARIES:
        return {}
    if function.text in _PARAMETERS:
        return arguments[0] if arguments else _OPAQUE
    if function.text in _TENSORS:
        match arguments:
            case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if all(
                type(size) is int for size in (*shape, *strides)
            ):
                return StoredTensor(storage, offset, shape, strides)
        raise ModelError("its pickle describes a tensor in a way that PyTorch does not")
    return _OPAQUE


_ACTIONS: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m.number("<B"),  # PROTO
    b"\x95": lambda m: m.number("<Q"),  # FRAME
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.pop_marked,
    b"2": lambda m: m.repeat(),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": _Machine.long,
    b"G": _Machine.real,
    b"X": lambda m: m.text("<I"),
    b"\x8c": lambda m: m.text("<B"),
    b"\x8d": lambda m: m.text("<Q"),
    b"B": lambda m: m.octets("<I"),
    b"C": lambda m: m.octets("<B"),
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"t": _Machine.marked_tuple,
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.pop_marked()),
    b"s": _Machine.set_item,
    b"u": lambda m: m.set_items(m.pop_marked()),
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": _Machine.memoize,
    b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"c": _Machine.global_name,
    b"\x93": _Machine.stack_global,
    b"Q": _Machine.persistent,
    b"R": _Machine.reduce,
    b"\x81": _Machine.new_object,
    b"b": _Machine.build,
}
