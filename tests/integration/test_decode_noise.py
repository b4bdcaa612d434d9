"""C libraries that decode have no say in the log."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests import imagefiles
from tests.servers import ServerProcess
from tests.unit.app.test_metadata import tiff_with


def with_unknown_tags(count: int) -> bytes:
    """A TIFF with tags that libtiff has never heard of, each worth two lines to it."""
    whole = imagefiles.encode(imagefiles.drawing(32, 32), "TIFF")
    (directory,) = struct.unpack_from("<I", whole, 4)
    (entries,) = struct.unpack_from("<H", whole, directory)
    known = whole[directory + 2 : directory + 2 + 12 * entries]
    unknown = b"".join(struct.pack("<HHII", 40_000 + index, 4, 1, index) for index in range(count))
    head = whole[:4] + struct.pack("<I", len(whole)) + whole[8:]
    return head + struct.pack("<H", entries + count) + known + unknown + b"\0" * 4


@pytest.mark.parametrize("frontends", [0, 1])
def test_nothing_but_the_log_reaches_standard_error(frontends: int, small_model: Path) -> None:
    lzw = imagefiles.encode(imagefiles.drawing(), "TIFF", compression="tiff_lzw")
    jpeg = imagefiles.encode(imagefiles.drawing(), "TIFF", compression="jpeg")
    files = [with_unknown_tags(500), tiff_with(50_000, 3, 2, 9)]
    for whole in (lzw, jpeg, imagefiles.jpeg(), imagefiles.png()):
        for start in range(8, len(whole), max(1, len(whole) // 25)):
            files.append(whole[:start] + b"\xff\xd8\0\xda" + whole[start + 4 :])
            files.append(whole[:start])
    with ServerProcess(model_path=small_model, log_format="json", frontends=frontends) as server:
        with server.client() as client:
            statuses = {client.post("/v1/classify", content=data).status_code for data in files}
        assert server.stop() == 0, server.describe()
    assert statuses <= {200, 400, 413, 415}
    for line in server.log:
        assert isinstance(json.loads(line), dict), line
