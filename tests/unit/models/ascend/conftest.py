from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.unit.models.ascend import fake_cann

TOOLS = ("atc", "amct_onnx")


@pytest.fixture(scope="session")
def cann_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for CANN's tools."""
    folder = tmp_path_factory.mktemp("cann")
    source = Path(fake_cann.__file__).read_text(encoding="utf-8")
    for tool in TOOLS:
        path = folder / tool
        path.write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
        path.chmod(0o755)
    return folder


@pytest.fixture
def cann(cann_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-ins, on the PATH."""
    monkeypatch.setenv("PATH", str(cann_folder) + os.pathsep + os.environ["PATH"])
    return cann_folder
