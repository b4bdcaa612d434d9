"""The files that results are written to: JSON lines, CSV, Parquet. A row per photo, in the photos' order."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, TypedDict

from tessera.app.errors import StartupError
from tessera.app.protocol.classify import Prediction

_ROWS_AT_ONCE = 4096


class Row(TypedDict, total=False):
    """What is known of a photo: predictions, or an error."""

    file: str
    predictions: list[Prediction]
    error: str


Writer = Callable[[Iterable[Row], int, BinaryIO], None]


def check_format(path: Path) -> None:
    """Find out before anything is built whether a file of this name can be written.

    Raises:
        StartupError: its suffix is unknown, or the package that it needs is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise StartupError(f"What format {path} should have is not known: end it in {', '.join(_WRITERS)}.")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise StartupError("Parquet files need pyarrow: pip install 'tessera-inference[parquet]'.")


def write_table(rows: Iterable[Row], top_k: int, path: Path, file: BinaryIO) -> None:
    """Write rows as the suffix of `path` says, a few at a time.

    Args:
        rows: what to write.
        top_k: predictions per photo.
        path: the name that `file` will have.
        file: where to write.
    """
    _WRITERS[path.suffix.lower()](rows, top_k, file)


def _write_lines(rows: Iterable[Row], top_k: int, file: BinaryIO) -> None:
    for row in rows:
        file.write(json.dumps(row).encode() + b"\n")


def _write_csv(rows: Iterable[Row], top_k: int, file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    columns = [(f"index_{rank}", f"label_{rank}", f"probability_{rank}") for rank in range(1, top_k + 1)]
    out = csv.writer(text)
    out.writerow(["file", "error", *chain.from_iterable(columns)])
    for row in rows:
        found = ((p["index"], p["label"], p["probability"]) for p in row.get("predictions", ()))
        out.writerow([row["file"], row.get("error", ""), *chain.from_iterable(found)])
    text.detach()


def _write_parquet(rows: Iterable[Row], top_k: int, file: BinaryIO) -> None:
    import pyarrow
    from pyarrow import parquet

    prediction = pyarrow.struct(
        {
            "rank": pyarrow.int32(),
            "index": pyarrow.int32(),
            "label": pyarrow.string(),
            "probability": pyarrow.float64(),
        }
    )
    schema = pyarrow.schema(
        {"file": pyarrow.string(), "predictions": pyarrow.list_(prediction), "error": pyarrow.string()}
    )
    with parquet.ParquetWriter(file, schema) as out:
        for some in _some(rows):
            out.write_table(pyarrow.Table.from_pylist([_in_utf8(row) for row in some], schema=schema))


def _in_utf8(row: Row) -> Row:
    """The name of a file may hold bytes that are no UTF-8; Parquet takes none."""
    texts = {
        key: value.encode("utf-8", "backslashreplace").decode() for key, value in row.items() if isinstance(value, str)
    }
    return {**row, **texts}  # type: ignore[typeddict-item]


def _some(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while some := list(islice(left, _ROWS_AT_ONCE)):
        yield some


_WRITERS: dict[str, Writer] = {".jsonl": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}
