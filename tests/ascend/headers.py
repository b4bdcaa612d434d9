"""Reads the prototypes of the double's header, and makes ctypes functions of them: the second table of types."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER = Path(__file__).parent / "double" / "acl.h"

_DECLARATION = re.compile(r"^((?:const )?\w+ \**)(\w+)\(([^)]*)\);", re.MULTILINE)
_ENUMS = ("aclError", "aclrtRunMode", "aclrtMemMallocPolicy", "aclrtMemcpyKind", "aclrtMemAttr", "aclDataType")
_TYPES: dict[str, Any] = {
    **dict.fromkeys((*_ENUMS, "aclFormat", "aclprofAicoreMetrics", "int32_t"), ctypes.c_int32),
    **dict.fromkeys(("aclrtContext", "aclrtStream", "void*"), ctypes.c_void_p),
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "char*": ctypes.c_char_p,
}


class Dims(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 128), ("dimCount", ctypes.c_size_t), ("dims", ctypes.c_int64 * 128))


class Batches(ctypes.Structure):
    _fields_ = (("batchCount", ctypes.c_size_t), ("batch", ctypes.c_uint64 * 128))


class Utilisation(ctypes.Structure):
    _fields_ = (("rates", ctypes.c_int32 * 4), ("extend", ctypes.c_void_p))


_STRUCTURES: dict[str, Any] = {"aclmdlIODims": Dims, "aclmdlBatch": Batches, "aclrtUtilizationInfo": Utilisation}


@dataclass(frozen=True)
class Declaration:
    """One C prototype; types as written, without const, names and spaces: "char*"."""

    name: str
    result: str
    arguments: tuple[str, ...]

    @property
    def result_type(self) -> Any:
        return ctypes_type(self.result)

    @property
    def argument_types(self) -> list[Any]:
        return [ctypes_type(argument) for argument in self.arguments]


def declarations(text: str | None = None) -> dict[str, Declaration]:
    """The prototypes of a header, the double's by default."""
    found = [_declaration(*match.groups()) for match in _DECLARATION.finditer(text or HEADER.read_text())]
    return {declaration.name: declaration for declaration in found}


def ctypes_type(written: str) -> Any:
    """The ctypes type of a C type; pointers to what only CANN knows are `void *`."""
    if written in _TYPES:
        return _TYPES[written]
    target = written.removesuffix("*")
    assert target != written, f"unknown type {written}"
    if target in _STRUCTURES or target in _TYPES or target == "float":
        return ctypes.POINTER({**_STRUCTURES, **_TYPES}[target])
    return ctypes.c_void_p


def typed(path: Path) -> ctypes.CDLL:
    """A build of the double with every function typed by its header."""
    library = ctypes.CDLL(str(path))
    for declaration in declarations().values():
        function = getattr(library, declaration.name, None)
        if function is not None:
            function.restype, function.argtypes = declaration.result_type, declaration.argument_types
    return library


def _declaration(result: str, name: str, arguments: str) -> Declaration:
    written = [part.strip() for part in arguments.split(",") if part.strip() not in ("", "void")]
    return Declaration(name, _plain(result), tuple(_plain(re.sub(r"\w+$", "", part)) for part in written))


def _plain(text: str) -> str:
    words = [word for word in text.replace("*", " * ").split() if word != "const"]
    return "".join(words)
