"""Evaluation: labels found in every layout, counts that add up however often it is stopped, honest intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tessera import engine
from tessera.engine.errors import ModelError
from tessera.engine.quantize.measures import agreement, sqnr
from tessera.models.evaluation.photos import ClassNames, LabelledPhoto, PhotoSet, find_labelled, read_wnids
from tessera.models.evaluation.report import result
from tessera.models.evaluation.runner import Watcher, evaluate
from tessera.models.evaluation.state import Block, StateFile
from tessera.models.evaluation.tally import Tally, label_ranks
from tests.unit.models.tiny import LABELS, SIZE, tiny_model

SHAPE = (SIZE, SIZE, 3)
NAMES = ClassNames(LABELS, ("n01", "n02", "n03", "n04", "n05"))
IDENTITY = {"model": "tiny", "photos": [7, "abc"]}


# Measures and statistics


def test_sqnr_is_signal_power_over_noise_power() -> None:
    reference = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    assert sqnr(reference, reference + np.float32(0.5)) == pytest.approx(10 * math.log10(50 / 1.0))
    assert sqnr(reference, reference) == math.inf
    assert sqnr(reference * 0, reference) == -math.inf
    with pytest.raises(ValueError, match="cannot be compared"):
        sqnr(reference, reference[:1])


def test_agreement_is_the_share_of_equal_first_classes() -> None:
    logits = np.eye(4, dtype=np.float32)
    assert agreement(logits, logits[[0, 1, 3, 2]]) == 0.5
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement(logits[:0], logits[:0])


@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ranks_are_places_in_a_stable_order(photos: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.integers(-2, 3, (photos, classes)).astype(np.float32)  # with ties
    labels = random.integers(0, classes, photos)
    order = np.argsort(-logits, axis=1, kind="stable")
    places = [list(row).index(label) for row, label in zip(order, labels, strict=True)]
    assert label_ranks(logits, labels).tolist() == places


# Labels


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def found(photos: PhotoSet) -> list[tuple[str, int]]:
    pairs = [(str(path.relative_to(photos.folder)), label) for path, label in photos.photos()]
    assert len(pairs) == photos.count
    return pairs


def test_folders_are_named_by_wnid_label_or_index(tmp_path: Path) -> None:
    for name in ("n03/b.png", "n03/deep/a.JPEG", "Bee/c.jpg", "4/d.png", "4/notes.txt", ".hidden/e.png"):
        draw(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("")
    photos = find_labelled(tmp_path, NAMES)
    assert found(photos) == [("4/d.png", 4), ("Bee/c.jpg", 1), ("n03/b.png", 2), ("n03/deep/a.JPEG", 2)]
    assert found(photos) == found(photos)  # walked anew each time
    (tmp_path / "Bee" / "c.jpg").rename(tmp_path / "Bee" / "z.jpg")
    assert find_labelled(tmp_path, NAMES).digest != photos.digest


def test_files_may_carry_their_class(tmp_path: Path) -> None:
    for name in ("000_ant.png", "03_dog.png"):
        draw(tmp_path / name)
    assert found(find_labelled(tmp_path, NAMES)) == [("000_ant.png", 0), ("03_dog.png", 3)]


def test_a_list_gives_paths_and_classes(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("val/one photo.JPEG 3\n\nval/two.JPEG 0\n", encoding="utf-8")
    photos = find_labelled(tmp_path, NAMES, tmp_path / "val.txt")
    assert found(photos) == [("val/one photo.JPEG", 3), ("val/two.JPEG", 0)]


def test_names_of_two_classes_decide_nothing() -> None:
    names = ClassNames(("crane", "dog", "Crane"))
    assert (names.index("crane"), names.index("dog"), names.index("2"), names.index("3")) == (None, 1, 2, None)


@pytest.mark.parametrize(
    ("files", "listed", "message"),
    [
        ((), None, "There are no photos"),
        (("zebra/a.png", "Bee/a.png"), None, "1 of 2 folders .* zebra"),
        (("5/a.png",), None, "1 of 1 folders"),
        (("Bee/a.txt",), None, "no photos in .* folders"),
        (("Bee/a.png", "b.png"), None, "beside them photos such as b.png"),
        (("a.png",), None, "class of .*a.png is not known"),
        (("5_a.png",), None, "class of .*5_a.png is not known"),
        (("9999999999999_a.png",), None, "is not known"),
        ((), "", "lists no photos"),
        ((), "a.png 0\nb.png 5\n", "Line 2"),
        ((), "a.png 0000000000001\n", "Line 1"),
        ((), "a.png", "Line 1"),
        ((), "a.png -1", "Line 1"),
        ((), "a\0.png 1", "Line 1"),
        ((), b"\xff\xfe 1", "Cannot read the list"),
    ],
)
def test_what_has_no_label_is_told(tmp_path: Path, files: tuple[str, ...], listed: str, message: str) -> None:
    (tmp_path / "photos").mkdir()
    for name in files:
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    path = None
    if listed is not None:
        path = tmp_path / "val.txt"
        path.write_bytes(listed if isinstance(listed, bytes) else listed.encode())
    with pytest.raises(ModelError, match=message):
        find_labelled(tmp_path / "photos", NAMES, path)


def test_missing_folder_list_and_wrong_wnids(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder of photos"):
        find_labelled(tmp_path / "gone", NAMES)
    with pytest.raises(ModelError, match="Cannot read the list"):
        find_labelled(tmp_path, NAMES, tmp_path / "gone.txt")
    (tmp_path / "wnids.txt").write_text("n01 tench\nn02 goldfish\n", encoding="utf-8")
    assert read_wnids(tmp_path / "wnids.txt", 2) == ("n01", "n02")
    with pytest.raises(ModelError, match="2 lines, but the model has 3 classes"):
        read_wnids(tmp_path / "wnids.txt", 3)


# The run


class InterruptedRunError(Exception):
    pass


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, engine.Session]]:
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        (folder / f"{seed}.onnx").write_bytes(tiny_model(seed=seed).SerializeToString())
    with (
        engine.load(folder / "0.onnx", backend="onnxruntime", threads=1) as first,
        engine.load(folder / "1.onnx", backend="onnxruntime", threads=1) as second,
    ):
        yield {"baseline": first, "other": second}


COUNT = 1300
BAD = {3, 700, 1299}


class Photos:
    """A photo set without files: the path is a number, the pixels follow from it."""

    def __init__(self) -> None:
        self.drawn = 0
        self.set = PhotoSet(Path("photos"), self._walk, COUNT, "digest")

    def _walk(self) -> Iterator[LabelledPhoto]:
        for number in range(COUNT):
            self.drawn = number + 1
            yield LabelledPhoto(Path(str(number)), number % 5)

    @staticmethod
    def pixels(number: int) -> np.ndarray:
        return np.random.default_rng(number).integers(0, 256, SHAPE, dtype=np.uint8)

    @staticmethod
    def decode(path: Path, row: np.ndarray) -> str | None:
        number = int(path.name)
        if number in BAD:
            return "broken"
        row[:] = Photos.pixels(number)
        return None


def run(
    sessions: dict[str, engine.Session], state: StateFile | None, stop_at: int = COUNT + 1
) -> tuple[Block, list[int]]:
    photos, unread = Photos(), []

    def progress(done: int, rate: float) -> None:
        assert photos.drawn - done <= 64  # bounded memory: no more than a few batches ahead
        assert rate > 0
        if done >= stop_at:
            raise InterruptedRunError

    watcher = Watcher(progress, lambda path, reason: unread.append(int(path.name)))
    return evaluate(photos.set, sessions, Photos.decode, SHAPE, workers=2, watcher=watcher, state=state), unread


@pytest.fixture(scope="module")
def whole(sessions: dict[str, engine.Session]) -> Block:
    block, unread = run(sessions, None)
    assert sorted(unread) == sorted(BAD)
    return block


def test_counts_are_those_of_all_logits_together(sessions: dict[str, engine.Session], whole: Block) -> None:
    numbers = [number for number in range(COUNT) if number not in BAD]
    pixels = np.stack([Photos.pixels(number) for number in numbers])
    labels = np.array(numbers) % 5
    first, second = (session.run(pixels) for session in sessions.values())
    report = result(whole)
    assert (report["photos"], report["unreadable"], report["unreadable_names"]) == (1297, 3, ["3", "700", "1299"])
    for name, logits in (("baseline", first), ("other", second)):
        counted = report["variants"][name]
        assert counted["top1"]["count"] == (logits.argmax(1) == labels).sum()
        assert counted["top5"]["share"] == 1.0  # of five classes
        assert counted["agreement"]["share"] == pytest.approx(agreement(first, logits))
    other = report["variants"]["other"]
    assert other["sqnr_db"] == pytest.approx(sqnr(first, second), abs=1e-3)
    assert report["variants"]["baseline"]["sqnr_db"] is None
    right, was_right = second.argmax(1) == labels, first.argmax(1) == labels
    assert (other["lost"], other["gained"]) == ((was_right & ~right).sum(), (right & ~was_right).sum())


def test_a_stopped_evaluation_goes_on_and_counts_nothing_twice(
    sessions: dict[str, engine.Session], whole: Block, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    for stop_at in (100, 600, 650):
        with StateFile(path, IDENTITY, list(sessions)) as state, pytest.raises(InterruptedRunError):
            run(sessions, state, stop_at)
    with StateFile(path, IDENTITY, list(sessions)) as state:
        assert state.done.photos >= 650
        block, unread = run(sessions, state)
        assert unread == [700, 1299]
    assert without_time(block) == without_time(whole)
    size = path.stat().st_size
    with StateFile(path, IDENTITY, list(sessions)) as state:
        again, unread = run(sessions, state)
    assert without_time(again) == without_time(whole)
    assert (unread, path.stat().st_size) == ([], size)


def without_time(block: Block) -> dict[str, object]:
    variants = result(block)["variants"]
    return {"photos": block.photos, "unreadable": block.unreadable, "named": block.named, **variants}


def test_scores_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    model = tiny_model()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.bias")
    bias.raw_data = np.full(5, np.nan, np.float32).tobytes()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with (
        engine.load(tmp_path / "m.onnx", backend="onnxruntime") as session,
        pytest.raises(ModelError, match="no numbers"),
    ):
        run({"baseline": session}, None)


# The state file


def block(photos: int) -> Block:
    return Block(photos, {"a": Tally(photos, 1, 2, 3, 4, 5, 6.5, 0.1)}, 1, [f"bad {photos}"], 1.0)


def test_a_line_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with StateFile(path, IDENTITY, ["a"]) as state:
        ends = [path.stat().st_size]
        for photos in (10, 20):
            state.append(block(photos))
            ends.append(path.stat().st_size)
    payload = path.read_bytes()
    for end in range(len(payload) + 1):
        path.write_bytes(payload[:end])
        if 0 < end < len('{"format":'):
            continue  # not known to be ours: refused below
        with StateFile(path, IDENTITY, ["a"]) as state:
            assert state.done.photos == 10 * (end >= ends[1]) + 20 * (end >= ends[2])
            state.append(block(5))
        with StateFile(path, IDENTITY, ["a"]) as state:
            assert state.done.photos == 10 * (end >= ends[1]) + 20 * (end >= ends[2]) + 5
            assert state.done.named[-1] == "bad 5"


@pytest.mark.parametrize("changed", [{"model": "other"}, {"photos": [8, "abc"]}, {"extra": 1}])
def test_results_of_something_else_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    with StateFile(tmp_path / "state", IDENTITY, ["a"]) as state:
        state.append(block(10))
    before = (tmp_path / "state").read_bytes()
    with pytest.raises(ModelError, match=f"{next(iter(changed))} changed since"):
        StateFile(tmp_path / "state", {**IDENTITY, **changed}, ["a"])
    assert (tmp_path / "state").read_bytes() == before


@pytest.mark.parametrize("payload", [b"notes", b"notes\n", b"{}\n", b"[]\n", b"\xff\n", b'{"a":1}\n', b'{"fo'])
def test_other_files_are_left_alone(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "state").write_bytes(payload)
    with pytest.raises(ModelError, match="no state of an evaluation"):
        StateFile(tmp_path / "state", IDENTITY, ["a"])
    assert (tmp_path / "state").read_bytes() == payload


def test_a_damaged_line_and_a_second_process_are_told(tmp_path: Path) -> None:
    with StateFile(tmp_path / "state", IDENTITY, ["a"]), pytest.raises(ModelError, match="in use"):
        StateFile(tmp_path / "state", IDENTITY, ["a"])
    with (tmp_path / "state").open("ab") as file:
        file.write(b'{"photos": 3}\n')
    with pytest.raises(ModelError, match="damaged"):
        StateFile(tmp_path / "state", IDENTITY, ["a"])
    with pytest.raises(ModelError, match="Cannot open"):
        StateFile(tmp_path, IDENTITY, ["a"])
