"""No version of a package is admitted that is known to fall to a stranger's request; the table is in the docs."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| ([0-9.]+) \| (.+) \|$", re.MULTILINE)
TABLE = (
    (REPOSITORY / "docs" / "security.md")
    .read_text()
    .partition("## Lower bounds of what we use")[2]
    .partition("\n## ")[0]
)
BOUNDS = {name: (Version(least), reason) for name, least, reason in ROW.findall(TABLE)}


def requirements() -> dict[str, Requirement]:
    """What is installed with the service and its extras, by name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["grpc"], *extras["tracing"]]
    # Python 3.10 gets no mended Pillow any more, as the docs say.
    python = {"python_version": max(platform.python_version(), "3.11.0", key=Version).rpartition(".")[0]}
    return {
        requirement.name: requirement
        for requirement in map(Requirement, wanted)
        if requirement.marker is None or requirement.marker.evaluate(python)
    }


def test_what_reads_bytes_of_strangers_is_in_the_table() -> None:
    assert BOUNDS.keys() >= {"pillow", "starlette", "python-multipart", "grpcio", "protobuf", "onnx", "httptools"}
    assert all(len(reason) > 20 for _, reason in BOUNDS.values())


@pytest.mark.parametrize("name", BOUNDS)
def test_no_version_below_the_bound_is_admitted(name: str) -> None:
    least, reason = BOUNDS[name]
    given = [Version(part.version) for part in requirements()[name].specifier if part.operator in (">=", "==", "~=")]
    assert given, f"{name} has no lower bound"
    assert max(given) >= least, f"{name}>={max(given)} admits what {least} mended: {reason}"


@pytest.mark.parametrize("name", BOUNDS)
def test_the_tests_run_with_a_version_that_is_admitted(name: str) -> None:
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip("an extra that is not installed")
    if name == "pillow" and sys.version_info < (3, 11):
        pytest.skip("there is none for this Python")
    assert requirements()[name].specifier.contains(installed, prereleases=True)
