"""Damaged image files, and a real server that has to answer each with a clean status.

Long run: `make fuzz` (100,000 files), or `python -m tests.fuzz.images --count 5000 --seed 7`.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image

from tests.servers import ServerProcess
from tests.small_model import small_folder

_MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "RGBA", "P", "L", "I;16", "1"], "WEBP": ["RGB", "RGBA"]}
_MODES |= {"GIF": ["P", "L"], "BMP": ["RGB", "L", "1"], "TIFF": ["RGB", "L", "CMYK", "F", "I;16"]}
_OPTIONS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{}, {"progressive": True}, {"quality": 20, "subsampling": 2}],
    "TIFF": [
        {},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
        {"compression": "packbits"},
        {"compression": "jpeg"},
        {"big_tiff": True},
    ],
    "WEBP": [{}, {"lossless": True}],
}
# Numbers at which parsers go wrong.
_EDGES = [b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]
_EDGES += [b"\x80\0\0\0", b"\0\0\0\x80", b"\xff\xff\xff\x7f", b"\xff\xd8", b"\xff\xda", b"\xff\xd9"]


def seeds() -> list[bytes]:
    """Whole files of every format, pixel type and compression."""
    files = []
    for kind, modes in _MODES.items():
        # JPEGs large enough to be decoded at a half.
        picture = Image.effect_noise((160, 136) if kind == "JPEG" else (48, 40), 60)
        for mode in modes:
            for options in _OPTIONS.get(kind, [{}]):
                buffer = io.BytesIO()
                try:
                    picture.convert(mode).save(buffer, kind, **options)
                except (OSError, ValueError):
                    continue  # not every compression takes every pixel type
                files.append(buffer.getvalue())
    return files


def mutations(seed: int, count: int, whole: Sequence[bytes] | None = None) -> Iterator[bytes]:
    """`count` damaged files, the same for the same seed.

    Args:
        seed: Of the damage.
        count: How many.
        whole: What is damaged; None: files of every kind.
    """
    chance = random.Random(seed)
    whole = whole or seeds()
    for _ in range(count):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
            _damage(data, chance, whole)
        yield bytes(data[:200_000])


def _damage(data: bytearray, chance: random.Random, whole: Sequence[bytes]) -> None:
    # Headers are where damage is interesting, so every other time it is there.
    size = max(1, len(data))
    place = chance.randrange(min(size, 128) if chance.random() < 0.5 else size)
    match chance.randrange(7):
        case 0:
            data[place : place + 1] = bytes([chance.randrange(256)])
        case 1:
            data[place : place + 1] = bytes([(data[place] if data else 0) ^ (1 << chance.randrange(8))])
        case 2:
            edge = chance.choice(_EDGES)
            data[place : place + len(edge)] = edge
        case 3:
            del data[place:]
        case 4:
            del data[place : place + chance.randrange(1, 64)]
        case 5:
            data[place:place] = data[place : place + chance.randrange(1, 512)] * chance.randrange(1, 8)
        case _:
            other = chance.choice(whole)
            start = chance.randrange(len(other))
            data[place : place + 64] = other[start : start + 64]


def attack(server: ServerProcess, files: Iterator[bytes], clients: int = 6) -> Counter[tuple[int, str]]:
    """Send every file; returns how often each status and error code came.

    Raises:
        AssertionError: The server answered with a 5xx other than 503, or did not answer.
    """
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(clients) as pool:

        def send(data: bytes) -> tuple[int, str]:
            answer = client.post("/v1/classify", content=data)
            told = answer.json()
            assert answer.status_code < 500 or answer.status_code == 503, (told, data[:4096].hex())
            return answer.status_code, told.get("code", "ok")

        return Counter(pool.map(send, files))


def main() -> int:
    """Attack a server of its own, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as place,
        ServerProcess(model_path=small_folder(Path(place) / "small", size=64, resize=68)) as server,
    ):
        done: Counter[tuple[int, str]] = Counter()
        for start in range(0, arguments.count, 10_000):
            part = min(10_000, arguments.count - start)
            done += attack(server, mutations(arguments.seed + start, part))
            print(f"{start + part} of {arguments.count}: {dict(sorted(done.items()))}", flush=True)
        assert server.stop() == 0, server.describe()
    return 0


if __name__ == "__main__":
    sys.exit(main())
