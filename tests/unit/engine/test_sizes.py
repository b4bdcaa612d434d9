"""Images of several sizes: as ONNX Runtime computes them at each, from weights that are in memory once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tessera import engine
from tessera.engine.backends.cpu.session import CpuSession
from tessera.engine.errors import BackendUnavailableError, InputError, ModelError
from tessera.engine.sizes import SIZES_KEY, open_sizes
from tests.unit.models.tiny import LABELS, SIZE, tiny_images, tiny_model

SIZES = [(160, 160), (192, 256), (224, 224), (224, 320), (288, 288), (384, 160), (384, 384)]
BATCHES = {(160, 160): (1, 3, 16, 64), (224, 320): (1, 7, 64)}
# Nothing but rounding in fp32; in int8, ONNX Runtime rounds sums that lie between two values otherwise now and then.
TOLERANCES = {"fp32": 2e-6, "int8": 0.02}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A thin ResNet in float and in int8, both for all the sizes."""
    folder = tmp_path_factory.mktemp("sizes")
    written = {precision: folder / f"{precision}.onnx" for precision in TOLERANCES}
    onnx.save(tiny_model(blocks=(1, 1, 1, 1)), written["fp32"])
    # Whichever tensors this CPU would keep in bf16, ONNX Runtime would run them in fp32.
    engine.quantize(written["fp32"], [tiny_images(32)], written["int8"], fallback="none")
    for path in written.values():
        model = onnx.load(path)
        open_sizes(model, SIZES)
        onnx.save(model, path)
    return written


def images(count: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [count, height, width, 3], smooth and all different."""
    coarse = np.random.default_rng(count).integers(0, 256, (count, -(-size[0] // 16), -(-size[1] // 16), 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : size[0], : size[1]])


@pytest.mark.parametrize("precision", TOLERANCES)
def test_every_size_and_batch_equals_onnx_runtime(files: dict[str, Path], precision: str) -> None:
    tolerance = TOLERANCES[precision]
    with (
        engine.load(files[precision], backend="cpu", threads=2) as ours,
        engine.load(files[precision], backend="onnxruntime", threads=2) as theirs,
    ):
        for size in SIZES:
            with ours.at(*size) as here, theirs.at(*size) as there:
                assert here.describe().inputs == there.describe().inputs
                assert here.describe().macs == there.describe().macs > 0
                for batch in BATCHES.get(size, (1, 5)):
                    pixels = images(batch, size)
                    wanted = there.run(pixels)
                    distance = np.linalg.norm(here.run(pixels) - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
                    assert distance.max() <= tolerance, (size, batch)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_another_size_takes_hardly_any_weights_more(
    files: dict[str, Path], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in ("scalar", "avx2", "avx512vnni"):
        monkeypatch.setenv("TESSERA_ISA", level)  # where the CPU has less, that is measured
        with engine.load(files[precision], backend="cpu", threads=1) as first:
            assert isinstance(first, CpuSession)
            alone = first.weight_bytes
            with first.at(288, 224) as second, second.at(384, 384) as third:
                assert isinstance(third, CpuSession)
                assert (
                    third.weight_bytes == first.weight_bytes <= 1.2 * alone
                )  # chains of products depend on the rows of an image
    with engine.load(files[precision], backend="onnxruntime") as first:
        assert first.at(288, 224)._session is first._session  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
def test_sizes_are_sessions_of_their_own(files: dict[str, Path], backend: str) -> None:
    first = engine.load(files["fp32"], backend=backend, threads=1)
    second = first.at(96, 128)
    small, large = images(2, SIZES[0]), images(2, (96, 128))
    scores = [session.run(batch) for session, batch in ((first, small), (second, large))]
    for session, batch, size in ((first, large, SIZES[0]), (second, small, (96, 128))):
        with pytest.raises(InputError, match=rf"shape \[N, {size[0]}, {size[1]}, 3\]"):
            session.run(batch)
    explained, maps = second.explain(large, [2, 0])
    assert np.allclose(explained, scores[1], atol=1e-6)
    assert maps[1] is None
    assert maps[0] is not None
    assert maps[0].values.shape == (2, 3, 4)
    assert np.allclose(maps[0].values.mean((1, 2)) + maps[0].bias, np.sort(explained[0])[:-3:-1], atol=1e-4)
    first.close()
    assert np.array_equal(second.run(large), scores[1])
    with pytest.raises(BackendUnavailableError):
        first.at(64, 64)
    second.close()
    assert scores[0].shape == (2, len(LABELS))


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
def test_what_cannot_change_its_size_says_so(files: dict[str, Path], backend: str, tmp_path: Path) -> None:
    onnx.save(tiny_model(), tmp_path / "fixed.onnx")
    with engine.load(tmp_path / "fixed.onnx", backend=backend) as session, pytest.raises(ModelError, match="one size"):
        session.at(2 * SIZE, SIZE)
    moving = tmp_path / "moving.onnx"
    moving.write_bytes(files["fp32"].read_bytes())
    with engine.load(moving, backend=backend) as session:
        moving.write_bytes(files["fp32"].read_bytes() + b"\n")
        with pytest.raises(ModelError, match=r"moving\.onnx"):
            session.at(64, 64)


@pytest.mark.parametrize(
    "told", ["224", "[224]", "[[224]]", '[["a", "b"]]', "[[0, 1]]", "[[true, true]]", "{", "[[1, 2, 3]]"]
)
def test_sizes_that_make_no_sense_are_refused(files: dict[str, Path], told: str, tmp_path: Path) -> None:
    model = onnx.load(files["fp32"])
    next(entry for entry in model.metadata_props if entry.key == SIZES_KEY).value = told
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=SIZES_KEY):
        engine.load(tmp_path / "odd.onnx", backend="cpu")
