"""Five seconds of generated requests over the whole OpenAPI document, all checks; `make fuzz` runs an hour."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.requests import TOKEN, generate
from tests.servers import ServerProcess
from tests.small_model import small_folder


def test_generated_requests_get_what_the_document_says(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "small")
    with ServerProcess(model_path=folder, admin="true", admin_token=TOKEN, threads=1) as server:
        ran = generate(server, seconds=5, seed=1)
        assert ran.returncode == 0, ran.stdout
        assert server.stop() == 0, server.describe()
