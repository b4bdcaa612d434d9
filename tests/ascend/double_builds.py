"""Builds of the double: compiled on first use, kept by the hash of their sources."""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tessera.engine.backends.ascend.library import Library, load_library
from tests.ascend.headers import declarations, typed
from tests.servers import CACHE

SOURCES = Path(__file__).parent / "double"
NAME = "libascendcl.so"

FLAGS = {
    "plain": ["-O1", "-march=native"],
    "cann6": ["-O1", "-march=native", "-DDOUBLE_CANN6"],
    "rc": ["-O1", "-march=native", "-DDOUBLE_RC"],
    "asan": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
}


def build(variant: str = "plain") -> Path:
    """The folder that holds a build as libascendcl.so."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "a C compiler is needed, as for the engine itself"
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread", *FLAGS[variant]]
    digest = hashlib.sha256(" ".join(command).encode() + _cpu())
    for source in sources:
        digest.update(source.read_bytes())
    folder = CACHE / "ascend-double" / f"{variant}-{digest.hexdigest()[:16]}"
    if not (folder / NAME).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder)) / NAME
        files = [str(source) for source in sources if source.suffix == ".c"]
        done = subprocess.run([*command, *files, "-o", str(made), "-lm"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made.replace(folder / NAME)
        made.parent.rmdir()
    return folder


def build_stub(folder: Path) -> Path:
    """CANN's stub library as its linker gets it: every function that returns a status returns 100039."""
    code = ["#include <stddef.h>", "typedef int aclError;"]
    for declaration in declarations().values():
        result, value = ("aclError", "100039") if declaration.result == "aclError" else ("size_t", "0")
        code.append(f"{result} {declaration.name}(void) {{ return {value}; }}")
    (folder / "stub.c").write_text("\n".join(code) + "\n")
    command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", str(folder / "stub.c"), "-o", str(folder / NAME)]
    subprocess.run(command, check=True)
    return folder


def _cpu() -> bytes:
    """-march=native: a cache that moves to another machine must not bring its instructions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "").encode()


class Double:
    """A copy of the double of its own: a library that is loaded from another file has its own state."""

    def __init__(self, folder: Path, variant: str = "plain") -> None:
        self.path = Path(tempfile.mkdtemp(dir=folder)) / NAME
        shutil.copyfile(build(variant) / NAME, self.path)
        self.raw = typed(self.path)

    def library(self) -> Library:
        return load_library({part: [self.path] for part in ("runtime", "model", "profiling")})

    def set_faults(self, text: str) -> None:
        self.raw.aclDoubleSetFaults(text.encode())

    def report(self) -> dict[str, Any]:
        text = ctypes.create_string_buffer(2048)
        self.raw.aclDoubleReport(text, len(text))
        report: dict[str, Any] = json.loads(text.value)
        return report

    def assert_clean(self) -> None:
        """Nothing was used wrongly, and everything was given back."""
        report = self.report()
        assert report["violations"] == 0, report["first_violation"]
        assert not any(report["live"].values()), report["live"]
        assert report["finalised"] == 0
        assert report["pageable_copies"] == 0


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path)
