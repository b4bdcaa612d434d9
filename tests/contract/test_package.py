"""The wheel owns one import name, and works beside a user's own `app.py` and `models/`; so does the working tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = Path(sys.executable).parent


def run(*command: str | Path, **variables: str) -> str:
    environment = {**os.environ, **variables}
    ended = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it would be published: built, then given its platform's name by auditwheel."""
    folder = tmp_path_factory.mktemp("wheel")
    built = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder / "built")
    # Not optimised: it takes a third of the time, and nothing is asked of it but that it loads. In a folder of its own,
    # because that of the installation is emptied for another CMake.
    built += (f"-Cbuild-dir={folder / 'build'}", "-Ccmake.build-type=Debug", "-Ccmake.define.CMAKE_C_FLAGS_DEBUG=-O0")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", *built, REPOSITORY)
    (file,) = (folder / "built").iterdir()
    run(BINARIES / "auditwheel", "repair", "--wheel-dir", folder / "repaired", file, PATH=_path())
    (repaired,) = (folder / "repaired").iterdir()
    return repaired


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder with modules of the names that our folders have."""
    folder = tmp_path / "user"
    for package in ("models", "engine", "app", "client"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"WHOSE = 'the user, {package}'\n")
    return folder


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The interpreter of an environment with the wheel in it, and what it needs from this one."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    # A path file's folder is searched, and its own path files are not read: the working tree stays out.
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    return python


def _path() -> str:
    return f"{BINARIES}{os.pathsep}{os.environ['PATH']}"


def works_beside(python: Path, folder: Path) -> str:
    """That both worlds work from one interpreter; returns where ours lies."""
    code = (
        "import app, client, engine, models, tessera.app, tessera.client, tessera.engine; "
        "import tessera.models.registry as ours; "
        "whose = {module.__name__: module.WHOSE for module in (app, client, engine, models)}; "
        "assert whose == {name: f'the user, {name}' for name in whose}, whose; "
        "tessera.engine.cpu_budget(); print(ours.__file__)"
    )
    return run(python, "-c", code, PYTHONPATH=str(folder)).strip()


def test_the_wheel_holds_one_package_for_many_linuxes(wheel: Path) -> None:
    assert "manylinux" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tessera"}
    assert len(tops) == 2
    assert any(name.startswith("tessera/engine/_native.") for name in names)
    assert {"tessera/models/resnet50-imagenette/weights.safetensors", "tessera/py.typed"} <= set(names)
    assert "tessera/app/web/built/church.jpg" in names
    assert not [name for name in names if "csrc" in name]
    run(BINARIES / "twine", "check", "--strict", wheel)


def test_the_installed_wheel_works_beside_a_users_modules(installed: Path, users_folder: Path) -> None:
    assert str(installed.parents[1]) in works_beside(installed, users_folder)
    command = installed.with_name("tessera")
    listed = run(command, "models", "list", PYTHONPATH=str(users_folder), TESSERA_CACHE_DIR=str(users_folder / "cache"))
    assert "resnet50-imagenette" in listed


def test_the_working_tree_works_beside_a_users_modules(users_folder: Path) -> None:
    assert str(REPOSITORY) in works_beside(Path(sys.executable), users_folder)
    listed = run(BINARIES / "tessera", "models", "list", PYTHONPATH=str(users_folder))
    assert "resnet50-imagenette" in listed
