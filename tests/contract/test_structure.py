"""The structure of the code: imports run one way, between packages, floors and folders."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("app", "models", "engine")
CLIENT = "client"  # which is for programs beside the service
# The floors of app/, from the ground up; a floor imports from those before it.
FLOORS = [
    *("errors", "version", "heap", "signals", "config_file", "platform_port"),
    *("scheduling", "routing", "imaging"),
    *("settings", "served", "protocol", "limits", "observability"),
    *("figures", "dispatch", "service"),
    *("api", "oip", "http", "main"),
    *("processes", "arguments", "commands", "cli"),
]


@cache
def imports(package: str) -> dict[str, set[str]]:
    """Module of our own -> modules of our own that it imports, wherever in its text."""
    files = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path
        for path in (REPOSITORY / package).rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        assert not {name for name in names if name.split(".")[0] in (*PACKAGES, CLIENT)}, (
            f"{module} imports without `tessera.`"
        )
        ours = {name.removeprefix("tessera.") for name in names if name.startswith("tessera.")}
        ours -= {"wording.counted"}  # the one module of the top, which imports nothing
        found[module.removesuffix(".__init__")] = ours
    return found


def room(module: str) -> str:
    """The folder of a module below its package; a module that lies in the package itself is a room of its own."""
    parts = module.split(".")
    while len(parts) > 2 and not (REPOSITORY / "/".join(parts)).is_dir():
        parts.pop()
    return ".".join(parts[:3])


def test_packages_import_one_way() -> None:
    for position, package in enumerate(PACKAGES):
        for module, names in imports(package).items():
            assert {name.split(".")[0] for name in names} <= set(PACKAGES[position:]), module


def test_the_client_and_the_house_import_nothing_of_each_other() -> None:
    for module, names in imports(CLIENT).items():
        assert {name.split(".")[0] for name in names} <= {CLIENT}, module
    for package in PACKAGES:
        assert not {name for names in imports(package).values() for name in names if name.startswith(f"{CLIENT}.")}


def test_no_floor_imports_from_above() -> None:
    for module, names in imports("app").items():
        if module == "app":
            continue
        here = FLOORS.index(module.split(".")[1])
        above = {name for name in names if name.startswith("app.") and FLOORS.index(name.split(".")[1]) > here}
        assert not above, f"{module} imports {above}"


def test_processes_that_speak_http_load_no_engine() -> None:
    code = "import sys, tessera.app.processes.frontend_process; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {name for name in told.stdout.split() if name.startswith("tessera.engine")}


@pytest.mark.parametrize("package", [*PACKAGES, CLIENT])
def test_folders_have_no_cycle(package: str) -> None:
    rooms: defaultdict[str, set[str]] = defaultdict(set)
    for module, names in imports(package).items():
        if module.count("."):
            rooms[room(module)] |= {room(name) for name in names if name.startswith(f"{package}.")} - {room(module)}
    TopologicalSorter(rooms).prepare()  # raises CycleError, which names the circle
