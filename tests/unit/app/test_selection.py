"""A model is named by its folder or as `tessera models list` shows it; anything else is told what would work."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tessera.app.cli import main
from tessera.app.errors import StartupError
from tessera.app.served.selection import find_model, shortest_name
from tessera.app.settings import Settings
from tessera.engine.errors import ModelError
from tessera.models.cache import library_folder
from tessera.models.package import read_package
from tessera.models.registry import BUNDLED
from tests.unit.models.tiny import LABELS, tiny_folder, tiny_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache")


def named(settings: Settings, name: object, models: Path | None = None) -> Path:
    return find_model(settings.model_copy(update={"model_path": Path(str(name)), "models": models}))


def test_every_name_that_is_listed_is_accepted(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tiny_folder(library_folder(tmp_path / "cache") / "folder-of-another-name")
    assert main(["models", "list", "--cache-dir", str(tmp_path / "cache")]) == 0
    listed = capsys.readouterr().out
    for name, folder in (("resnet50-imagenette", BUNDLED), ("tiny", mine)):
        assert f" {name} " in listed
        assert named(settings, name) == folder
        assert shortest_name(folder, settings) == name
    assert named(settings, mine) == mine


def test_names_in_the_models_folder_go_first(settings: Settings, tmp_path: Path) -> None:
    library = tiny_folder(library_folder(tmp_path / "cache") / "tiny")
    root = tmp_path / "root"
    wanted = tiny_folder(root / "v2")
    tiny_folder(root / "other")
    (root / "other" / "model.toml").write_text(
        (wanted / "model.toml").read_text().replace('"tiny"', '"other"'), encoding="utf-8"
    )
    assert named(settings, "tiny", root) == wanted
    assert named(settings, "tiny") == library
    assert named(settings, "other", root) == root / "other"
    assert named(settings, "resnet50-imagenette", root) == BUNDLED


def test_a_folder_that_is_no_model_does_not_hide_a_name(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tiny_folder(library_folder(tmp_path / "cache") / "tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert named(settings, "tiny") == mine


def test_a_name_of_two_models_and_one_of_none_are_told(settings: Settings, tmp_path: Path) -> None:
    for place in ("a", "b"):
        tiny_folder(library_folder(tmp_path / "cache") / place)
    with pytest.raises(StartupError, match=r"Several models are called tiny.*/a, .*/b"):
        named(settings, "tiny")
    with pytest.raises(StartupError, match="Did you mean resnet50-imagenette"):
        named(settings, "resnet50-imagenet")


def repository(root: Path, name: str = "net", version: str = "1") -> Path:
    """A model repository as Triton wants it."""
    (root / name / version).mkdir(parents=True)
    (root / name / version / "model.onnx").write_bytes(tiny_model().SerializeToString())
    return root


def bare(root: Path) -> Path:
    root.mkdir()
    (root / "net v2.onnx").write_bytes(tiny_model().SerializeToString())
    return root


def with_labels(root: Path) -> Path:
    repository(root)
    (root / "net" / "config.pbtxt").write_text('output [ { name: "output" label_filename: "names.txt" } ]')
    (root / "net" / "names.txt").write_text("\n".join(LABELS), encoding="utf-8")
    return root / "net"


@pytest.mark.parametrize(
    ("make", "flag", "name"),
    [
        (lambda root: bare(root) / "net v2.onnx", "--model-path", "net-v2"),
        (bare, "--model-path", "folder"),
        (bare, "--models", "folder"),
        (lambda root: repository(root) / "net", "--model-path", "net"),
        (lambda root: repository(repository(root), version="12") / "net", "--model-path", "net"),
        (repository, "--model-path", "net"),
        (repository, "--models", "net"),
        (with_labels, "--model-path", "net"),
    ],
)
def test_what_is_no_model_folder_is_told_the_command_that_makes_one(
    make: object, flag: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    path = make(tmp_path / "folder")  # type: ignore[operator]
    assert main(["models", "build", flag, str(path), *cache]) == 1
    _, _, command = capsys.readouterr().err.rpartition(" Make one of it with: tessera ")
    assert main([*shlex.split(command), *cache]) == 0, command
    assert main(["models", "build", "--model-path", name, *cache]) == 0
    if (path / "names.txt").exists():
        assert read_package(library_folder(tmp_path / "cache") / name).labels == LABELS
    if (path / "12").exists():
        assert "/12/model.onnx" in command


def test_adding_a_folder_is_told_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = repository(tmp_path / "root") / "net"
    assert main(["models", "add", str(folder)]) == 1
    assert f"tessera models add {folder}/1/model.onnx --name net" in capsys.readouterr().err
    assert main(["models", "add", str(tiny_folder(tmp_path / "tiny"))]) == 1
    assert "is a model folder already" in capsys.readouterr().err


def test_what_holds_no_model_at_all_is_told(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("no model")
    for path in (tmp_path, tmp_path / "file.txt", tmp_path / "gone"):
        with pytest.raises(ModelError, match=r"no model folder|not a model folder") as told:
            read_package(path)
        assert "models add" not in str(told.value)


def test_errors_of_an_import_name_the_users_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bare(tmp_path / "folder") / "net v2.onnx"
    assert main(["models", "add", str(file), "--size", "64", "--into", str(tmp_path / "into")]) == 1
    told = capsys.readouterr().err
    assert str(file) in told
    assert ".partial" not in told
    assert not (tmp_path / "into").exists()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(cls: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(homeless))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ModelError, match="TESSERA_CACHE_DIR"):
        find_model(Settings(model_path=Path("nothing")))
