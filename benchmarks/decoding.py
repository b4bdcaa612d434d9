"""Our decoder against Pillow's decode, resize and crop, photo by photo in turns, on one core.

    .venv/bin/python -m benchmarks.decoding              # speed
    .venv/bin/python -m benchmarks.decoding --accuracy   # what the network makes of photos decoded at a fraction
    .venv/bin/python -m benchmarks.decoding --memory     # what a JPEG of 64 megapixels adds

Two corpora: ImageNet photos as they are, and the same photos made as large as a phone's (12 megapixels, by Pillow's
Lanczos filter, quality 88): real photos of that size are not part of the data. The figure of speed is the median over
rounds of the ratio of both times within a round.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import PIL
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.peer_models import PeerModels, find_data
from tessera.app.imaging.decoder import ImageDecoder
from tessera.engine.machine import cpu_name
from tessera.models.preprocessing.transform import Preprocessing, geometry

PHOTOS, PHONE_PHOTOS = 60, 6
PHONE = (4000, 3000)
BATCH = 16
# Small first, so that only what the large one takes is counted; then the kernel's mark of the most memory is reset.
MEASURED = """
import io, sys, numpy as np
from PIL import Image
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.preprocessing.transform import Preprocessing
decoder = ImageDecoder(Preprocessing(), max_pixels=1 << 26, decode_scale=sys.argv[2] == "True")
row, small = np.empty(decoder.shape, np.uint8), io.BytesIO()
Image.new("RGB", (500, 375)).save(small, "JPEG")
decoder.decode(small.getvalue(), row)
data = open(sys.argv[1], "rb").read()
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
decoder.decode(data, row)
print(status("VmHWM") - before)
"""
MAX_PIXELS = 64 * 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default 15)")
    parser.add_argument("--data", type=Path, help="folder with resnet50-imagenet and imagenet-sample")
    parser.add_argument("--accuracy", action="store_true", help="compare answers instead of times")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of times")
    parser.add_argument("--photos", type=int, default=500, help="photos whose answers are compared (default 500)")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    if arguments.accuracy:
        print_accuracy(data, arguments.photos)
    elif arguments.memory:
        print_memory(data)
    else:
        print_speed(data, arguments.rounds)


def print_speed(data: Path, rounds: int) -> None:
    """Time both decoders on one core, and print the table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files = sorted((data / "imagenet-sample").glob("*.JPEG"))
    photos = [files[index * len(files) // PHOTOS].read_bytes() for index in range(PHOTOS)]
    corpora = {"ImageNet": photos, "12 megapixels": [as_phone_photo(photo) for photo in photos[:PHONE_PHOTOS]]}
    table = Table("photos", "Pillow, ms", "ours, ms", "ours over Pillow", "ours without scaling", box=box.MARKDOWN)
    for name, corpus in corpora.items():
        theirs, ours, whole = measure(corpus, rounds)
        ratios = [median(b / a for a, b in zip(theirs, other, strict=True)) for other in (ours, whole)]
        table.add_row(name, f"{median(theirs):.2f}", f"{median(ours):.2f}", *(f"{ratio:.2f}" for ratio in ratios))
    console = Console(width=120)
    console.print(f"{cpu_name()}; one core; Pillow {PIL.__version__}; median of {rounds} interleaved rounds")
    console.print(table)


def print_accuracy(data: Path, count: int) -> None:
    """Run photos decoded both ways through the ImageNet model in fp32 and int8, and print what differs."""
    files = sorted((data / "imagenet-sample").glob("*.JPEG"))
    files = [files[index * len(files) // count] for index in range(count)]
    truth = np.array([int(file.name.partition("_")[0]) for file in files])
    models = PeerModels(data, Path("benchmarks/results/models"))
    runs = models.open_all(BATCH, len(os.sched_getaffinity(0)), ["ours-fp32", "ours-int8"])
    table = Table(
        "photos", "precision", "same top-1", "SQNR, dB", "top-1, top-5 whole", "at a fraction", box=box.MARKDOWN
    )
    for name, prepare in (("as they are", bytes), ("12 megapixels", as_phone_photo)):
        pixels = np.empty((2, count, *Preprocessing().shape), np.uint8)
        for index, file in enumerate(files):
            photo = prepare(file.read_bytes())
            for way, decode_scale in enumerate((False, True)):
                ImageDecoder(Preprocessing(), max_pixels=MAX_PIXELS, decode_scale=decode_scale).decode(
                    photo, pixels[way, index]
                )
        for engine, (run, precision) in runs.items():
            whole, fraction = (
                np.concatenate([run(models.normalise(way[at : at + BATCH])) for at in range(0, count, BATCH)])
                for way in pixels
            )
            same = (whole.argmax(1) == fraction.argmax(1)).mean()
            noise = float(((whole - fraction) ** 2).sum())
            sqnr = 10 * np.log10(float((whole**2).sum()) / noise) if noise else np.inf
            scores = [", ".join(f"{share:.1%}" for share in hits(logits, truth)) for logits in (whole, fraction)]
            assert engine.endswith(precision)
            table.add_row(name, precision, f"{same:.1%}", f"{sqnr:.1f}", *scores)
    models.close()
    console = Console(width=120)
    console.print(f"{cpu_name()}; Pillow {PIL.__version__}; {count} photos of imagenet-sample")
    console.print(table)


def print_memory(data: Path) -> None:
    """Decode a photo of 64 megapixels each way in a process of its own, and print by how much that grew."""
    picture = Image.open(next((data / "imagenet-sample").glob("*.JPEG"))).convert("RGB")
    table = Table("JPEG", "decode_scale", "MB added at the peak", box=box.MARKDOWN)
    with tempfile.TemporaryDirectory() as folder:
        for progressive in (False, True):
            large = Path(folder) / f"{progressive}.jpg"
            picture.resize((9200, 7200)).save(large, "JPEG", quality=85, progressive=progressive)
            for decode_scale in (True, False):
                measure = [sys.executable, "-c", MEASURED, str(large), str(decode_scale)]
                added = int(subprocess.run(measure, capture_output=True, text=True, check=True).stdout)
                kind = "progressive" if progressive else "baseline"
                table.add_row(kind, str(decode_scale), f"{added / 1e6:.1f}")
    Console(width=120).print(table)


def hits(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Shares of photos whose class is the first, and among the first five."""
    ranked = np.argsort(-logits, axis=1)[:, :5] == truth[:, None]
    return float(ranked[:, 0].mean()), float(ranked.any(axis=1).mean())


def as_phone_photo(photo: bytes) -> bytes:
    """The photo, turned to lie and enlarged to 12 megapixels."""
    picture = Image.open(io.BytesIO(photo)).convert("RGB")
    if picture.height > picture.width:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    picture.resize(PHONE, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def measure(photos: Sequence[bytes], rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds a photo of each round: Pillow's, ours, and ours without scaling."""
    row = np.empty(Preprocessing().shape, np.uint8)
    decoders = [ImageDecoder(Preprocessing(), max_pixels=MAX_PIXELS, decode_scale=scale) for scale in (True, False)]

    def ours(photo: bytes) -> None:
        decoders[0].decode(photo, row)

    def whole(photo: bytes) -> None:
        decoders[1].decode(photo, row)

    contenders: list[Callable[[bytes], object]] = [pillow, ours, whole]
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds + 1):
        for contender, taken in zip(contenders, times, strict=True):
            started = time.perf_counter()
            for photo in photos:
                contender(photo)
            if turn:  # the first warms up
                taken.append((time.perf_counter() - started) * 1000 / len(photos))
    return times[0], times[1], times[2]


def pillow(photo: bytes) -> np.ndarray:
    """Decode, resize and crop as the reference preprocessing does."""
    with Image.open(io.BytesIO(photo)) as opened:
        picture = opened.convert("RGB")
    place = geometry(*picture.size, Preprocessing())
    resized = picture.resize((place.width, place.height), Image.Resampling.BILINEAR)
    high, wide, _ = Preprocessing().shape
    return np.asarray(resized.crop((place.left, place.top, place.left + wide, place.top + high)))


if __name__ == "__main__":
    main()
