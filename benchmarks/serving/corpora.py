"""The photos that clients send."""

from __future__ import annotations

from pathlib import Path

from benchmarks.decoding import as_phone_photo

PHOTOS, PHONE_PHOTOS = 96, 24  # at least a batch


def _photos(folder: Path, _: Path) -> list[Path]:
    photos = sorted(folder.glob("*.JPEG"))
    return [photos[i * len(photos) // PHOTOS] for i in range(PHOTOS)]


def _phone_photos(folder: Path, cache: Path) -> list[Path]:
    """Some of the same photos as large as a phone's, see `benchmarks.decoding`; made once."""
    made = []
    for photo in _photos(folder, cache)[:: PHOTOS // PHONE_PHOTOS]:
        path = cache / "phone-photos" / photo.name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(as_phone_photo(photo.read_bytes()))
        made.append(path)
    return made


CORPORA = {"imagenet": _photos, "phone": _phone_photos}
