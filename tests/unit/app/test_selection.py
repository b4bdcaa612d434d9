"""A model is named by its folder or as `tessera models list` shows it; anything else is told what would work."""

from __future__ import annotations

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
from safetensors.numpy import save_file

from tessera.app.cli import main
from tessera.app.errors import StartupError
from tessera.app.served.selection import find_model, shortest_name
from tessera.app.settings import Settings
from tessera.engine.errors import ModelError
from tessera.models.cache import library_folder
from tessera.models.package import read_package
from tessera.models.registry import BUNDLED
from tests import imagefiles
from tests.unit.models.classifiers import classifier
from tests.unit.models.tiny import LABELS, tiny_folder, tiny_model, tiny_state
from tests.unit.models.torchfiles import checkpoint as torch_file


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


FORMS = [
    (bare, "folder"),
    (lambda root: repository(root) / "net", "net"),
    (lambda root: repository(repository(root), version="12") / "net", "net"),
    (repository, "net"),
    (with_labels, "net"),
]


@pytest.mark.parametrize(
    ("make", "name", "refused"),
    [
        *((make, name, ("models", "add")) for make, name in FORMS),
        (bare, "folder", ("models", "build", "--models")),
        (repository, "net", ("models", "build", "--models")),
    ],
)
def test_what_is_no_model_folder_is_told_the_command_that_makes_one(
    make: object, name: str, refused: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    path = make(tmp_path / "folder")  # type: ignore[operator]
    assert main([*refused, str(path), *cache]) == 1
    _, _, command = capsys.readouterr().err.rpartition(" Make one of it with: tessera ")
    assert main([*shlex.split(command), *cache]) == 0, command
    assert main(["models", "build", "--model-path", name, *cache]) == 0
    if (path / "names.txt").exists():
        assert read_package(library_folder(tmp_path / "cache") / name).labels == LABELS
    if (path / "12").exists():
        assert "/12/model.onnx" in command


def state_dict(root: Path) -> Path:
    root.mkdir()
    save_file(tiny_state(), root / "mine.safetensors")
    return root


def make_folder(root: Path) -> Path:
    root.mkdir()
    return root


def checkpoint(root: Path) -> Path:
    root.mkdir()
    (root / "mine.pth").write_bytes(torch_file(tiny_state()))
    return root / "mine.pth"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *FORMS,
        (lambda root: bare(root) / "net v2.onnx", "net-v2"),
        (state_dict, "folder"),
        (lambda root: state_dict(root) / "mine.safetensors", "mine"),
        (checkpoint, "mine"),
        (lambda root: repository(root) / "net" / "1", "net"),
        (lambda root: repository(root) / "net" / "1" / "model.onnx", "net"),
        (lambda root: tiny_folder(root / "one").parent, "tiny"),
        (lambda root: state_dict(make_folder(root) / "export").parent, "export"),
    ],
)
def test_a_file_or_a_foreign_folder_is_taken_as_it_is(
    make: object, name: str, settings: Settings, tmp_path: Path
) -> None:
    path = make(tmp_path / "folder")  # type: ignore[operator]
    steps: list[str] = []
    folder = find_model(settings.model_copy(update={"model_path": path}), lambda stage, _: steps.append(stage))
    assert read_package(folder).name == name
    assert read_package(folder).labels in (LABELS, tuple(f"class {index}" for index in range(5)))
    imports = len(steps)
    assert find_model(settings.model_copy(update={"model_path": path}), lambda stage, _: steps.append(stage)) == folder
    assert len(steps) == imports, "nothing is left to do the second time"


def test_what_lies_around_a_file_says_what_the_file_does_not(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    (folder / "1").mkdir(parents=True)
    onnx.save(classifier(size=("height", "width")), folder / "1" / "model.onnx")
    assert read_package(named(settings, folder)).preprocessing.size == 224
    (folder / "config.pbtxt").write_text(
        """input [ { name: "image" data_type: TYPE_FP32 dims: [ 3, 48, 48 ] } ]  # not: dims: [ 3, 32, 32 ]
        output [ { name: "logits" dims: [ 5 ] label_filename: "names.txt" } ]
        version_policy: { specific { versions: [ 1, 3 ] } }"""
    )
    (folder / "names.txt").write_text("\n".join(LABELS), encoding="utf-8")
    repository(tmp_path, version="2")  # which is not served
    package = read_package(named(settings, folder))
    assert package.preprocessing.size == 48
    assert package.labels == LABELS
    assert "size: as given; resize, interpolation, mean, std: ImageNet's standard" in package.description


def test_another_content_is_another_model(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    model = tiny_model()
    onnx.save(model, file, save_as_external_data=True, location="net.data", size_threshold=0)
    first = named(settings, file)
    weights = bytearray((tmp_path / "net.data").read_bytes())
    weights[1000] ^= 1
    (tmp_path / "net.data").write_bytes(weights)
    second = named(settings, file)
    assert second != first
    (tmp_path / "labels.txt").write_text("\n".join("VWXYZ"), encoding="utf-8")
    assert read_package(named(settings, file)).labels == tuple("VWXYZ")
    (tmp_path / "labels.txt").unlink()
    assert named(settings, file) == second


def test_several_processes_may_want_the_same_file(settings: Settings, tmp_path: Path) -> None:
    file = bare(tmp_path / "folder") / "net v2.onnx"
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(lambda _: named(settings, file), range(4)))) == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("netz.onnx", "Did you mean {0}/net.onnx?"),
        ("net", "Did you mean {0}/net.onnx?"),
        ("several", "name one, such as {0}/several/a.onnx"),
        ("models", "several models (a, b); name one, such as {0}/models/a"),
        ("repository", "several models (a, b); name one, such as {0}/repository/a"),
        ("exports", "several models (a, b); name one, such as {0}/exports/a"),
        ("plan", "1/model.plan is of another framework: export that network to ONNX"),
        ("photo.jpg", "a model is a folder or .onnx, .safetensors, .pth, .pt"),
        ("net.onnx.gz", "gunzip -k {0}/net.onnx.gz"),
        ("broken.onnx", "{0}/broken.onnx: The file is not an ONNX model"),
        ("huge", "from 1 to 4096"),
        ("misfit", "names.txt has 1 label, but the network has 5 classes"),
    ],
)
def test_what_cannot_be_served_is_told_the_nearest_thing_that_can(
    what: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    files = ("net.onnx", "several/a.onnx", "several/b.onnx", "plan/1/model.plan", "photo.jpg", "net.onnx.gz")
    for path in (*files, "exports/a/model.onnx", "exports/b/model.onnx"):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_bytes(b"not read")
    for name in ("a", "b"):
        tiny_folder(here / "models" / name)
        repository(here / "repository", name)
    (here / "broken.onnx").write_bytes(tiny_model().SerializeToString()[:-1000])
    (here / "huge" / "1").mkdir(parents=True)
    onnx.save(classifier(size=("height", "width")), here / "huge" / "1" / "model.onnx")
    (here / "huge" / "config.pbtxt").write_text("input [ { dims: [ 3, 5000, 5000 ] } ]")
    misfit = with_labels(here / "misfit")
    (misfit / "names.txt").write_text("only one")
    assert main(["models", "show", str(here / what), "--cache-dir", str(tmp_path / "c")]) == 1
    assert words.format(here) in capsys.readouterr().err


def test_a_name_that_can_be_pulled_is_told_so(settings: Settings) -> None:
    with pytest.raises(StartupError, match="tessera models pull torchvision-resnet50-v2"):
        named(settings, "torchvision-resnet50-v2")


def test_a_file_is_quantised_and_reset_as_a_model_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    file = str(bare(tmp_path / "folder") / "net v2.onnx")
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(imagefiles.jpeg(300 + 8 * number))

    def optimised() -> str:
        assert main(["models", "show", file, *cache]) == 0
        (told,) = re.findall(r"^optimised +(.*)$", capsys.readouterr().out, re.MULTILINE)
        return str(told)

    assert optimised().startswith("no calibration")
    assert main(["models", "quantise", str(tmp_path), "--accept", "--model-path", file, *cache]) == 0
    undo = capsys.readouterr().out.rpartition("Undo it with: tessera ")[2]
    assert shlex.split(undo)[:3] == ["models", "reset", file]
    assert optimised().startswith("from a calibration, made on this machine")
    assert main(shlex.split(undo)) == 0
    assert optimised().startswith("no calibration")


def test_a_model_is_removed_with_what_was_built_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    file = bare(tmp_path / "folder") / "net v2.onnx"
    assert main(["models", "add", str(file), "--name", "mine", *cache]) == 0
    for name in ("mine", str(file)):
        assert main(["models", "build", "--model-path", name, *cache]) == 0
        assert main(["models", "remove", name, *cache]) == 0
        gone = re.findall(r"^removed: (.+)$", capsys.readouterr().out, re.MULTILINE)
        assert len(gone) == 2
        assert not any(Path(path).exists() for path in gone)
        assert main(["models", "remove", name, *cache]) == 1
    assert file.is_file()


def test_what_is_not_ours_is_not_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, folder = ("--cache-dir", str(tmp_path / "cache")), tiny_folder(tmp_path / "mine")
    for name, words in ((str(folder), "yours to remove"), ("resnet50-imagenette", "comes with Tessera")):
        assert main(["models", "remove", name, *cache]) == 1
        assert words in capsys.readouterr().err
    assert read_package(folder).name == "tiny"
    assert BUNDLED.is_dir()


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
