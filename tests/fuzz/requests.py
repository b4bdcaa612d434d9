"""Generated requests: schemathesis reads our OpenAPI document and tries every operation against a real server.

Long run: `make fuzz`, or `python -m tests.fuzz.requests --seconds 600 --seed 7`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.servers import ServerProcess
from tests.small_model import small_folder

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
TOKEN = "a-token-for-generated-requests"


def generate(server: ServerProcess, *, seconds: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with all checks; its exit code is 0 when all held."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, "--config-file", str(CONFIGURATION), "run", f"{server.url}/openapi.json"]
    options = ["--checks", "all", "--max-time", str(seconds), "--seed", str(seed), "--no-color"]
    options += ["--header", f"Authorization: Bearer {TOKEN}", "--continue-on-failure", "--warnings", "off"]
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            [*command, *options], cwd=elsewhere, capture_output=True, text=True, timeout=seconds + 300, check=False
        )


def main() -> int:
    """Attack a server of its own, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = small_folder(Path(place) / "small")
        with ServerProcess(model_path=folder, admin="true", admin_token=TOKEN) as server:
            ran = generate(server, seconds=arguments.seconds, seed=arguments.seed)
            print(ran.stdout)
            assert server.stop() == 0, server.describe()
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
