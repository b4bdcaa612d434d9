"""The binding's table of types against the one that the double was written from, and against its own calls."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest

from tessera.engine.backends.ascend import structures
from tessera.engine.backends.ascend.constants import (
    ERROR_NAMES,
    DataType,
    MallocPolicy,
    MemcpyKind,
    MemoryAttribute,
    RunMode,
)
from tessera.engine.backends.ascend.prototypes import PROTOTYPES
from tests.ascend.headers import HEADER, Batches, Dims, Utilisation, declarations

BACKEND = Path(structures.__file__).parent


def describe(ctype: Any) -> str:
    """A type by what the machine sees: width, sign, pointer, structure."""
    if ctype is None:
        return "nothing"
    if issubclass(ctype, ctypes._Pointer):
        return f"pointer to {describe(ctype._type_)}"
    if issubclass(ctype, ctypes.Structure):
        return f"structure of {ctypes.sizeof(ctype)} bytes"
    return f"{ctype._type_} of {ctypes.sizeof(ctype)} bytes"


@pytest.mark.parametrize("name", PROTOTYPES)
def test_the_two_tables_agree(name: str) -> None:
    ours, theirs = PROTOTYPES[name], declarations()[name]
    assert describe(ours.returns) == describe(theirs.result_type)
    assert [describe(a) for a in ours.arguments] == [describe(a) for a in theirs.argument_types]
    assert ours.checked == (theirs.result == "aclError")


def test_functions_of_later_versions_are_the_ones_that_the_header_leaves_out_for_cann_6() -> None:
    early, _, late = HEADER.read_text().partition("#ifndef DOUBLE_CANN6")
    for prototype in PROTOTYPES.values():
        assert prototype.name in declarations(early if prototype.since == "6.0" else late), prototype


def test_structures_have_the_sizes_and_offsets_of_cann() -> None:
    for ours, theirs, size in (
        (structures.IODims, Dims, 1160),
        (structures.Batch, Batches, 1032),
        (structures.UtilizationInfo, Utilisation, 24),
    ):
        assert ctypes.sizeof(ours) == ctypes.sizeof(theirs) == size
    assert (structures.IODims.count.offset, structures.IODims.sizes.offset) == (128, 136)
    assert structures.Batch.sizes.offset == 8
    assert structures.UtilizationInfo.extend.offset == 16


def test_values_agree_with_the_header() -> None:
    text = HEADER.read_text()
    values = {name: int(value) for name, value in re.findall(r"\b(ACL_\w+) = (-?\d+)", text)}
    for enum, prefix, suffix in (
        (RunMode, "ACL_", ""),
        (MemcpyKind, "ACL_MEMCPY_", ""),
        (MallocPolicy, "ACL_MEM_MALLOC_", ""),
        (MemoryAttribute, "ACL_", "_MEM"),
        (DataType, "ACL_", ""),
    ):
        for member in enum:
            assert values[f"{prefix}{member.name}{suffix}"] == member.value
    for name, code in values.items():
        if name.startswith("ACL_ERROR_"):
            assert ERROR_NAMES[code].endswith(name.removeprefix("ACL_ERROR_").removeprefix("RT_").removeprefix("GE_"))


def test_every_function_that_is_called_has_a_prototype() -> None:
    called: set[str] = set()
    for path in BACKEND.glob("*.py"):
        if path.name != "prototypes.py":
            called |= set(re.findall(r'"(acl[A-Za-z]\w+)"', path.read_text()))
    assert called <= set(PROTOTYPES)
    for side in ("Input", "Output"):  # names that are put together
        for name in (f"aclmdlGet{side}Dims", f"aclmdlGet{side}DataType", f"aclmdlGet{side}SizeByIndex"):
            assert name in PROTOTYPES
