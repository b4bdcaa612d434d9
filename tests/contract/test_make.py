"""What `make serve` says on a fresh machine: our own lines, and every error; the tools are stubs of a few lines."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.servers import REPOSITORY

# `python -m venv FOLDER` puts it and a `tessera` there; `python -m pip` warns of its own affairs unless asked not to.
PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
    printf '#!/bin/sh\\necho "tessera $*"\\n' > "$3/bin/tessera" && chmod +x "$3/bin/tessera" ;;
"-m pip") case "$*" in *"--quiet --quiet"*) ;; *) echo "WARNING: of pip's own" >&2 ;; esac
    if [ -n "$BROKEN" ]; then echo "error: the compiler failed" >&2; exit 1; fi ;;
esac
"""


def make(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    stub = folder / "python-stub"
    stub.write_text(PYTHON)
    stub.chmod(0o755)
    return subprocess.run(
        ["make", "--no-print-directory", "serve", f"PYTHON={stub}", f"VENV={folder / 'venv'}"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_make_serve_says_what_it_does_and_no_more(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    installing, served = first.stdout.splitlines()
    assert installing.startswith(f"Installing Tessera into {tmp_path / 'venv'}")
    assert served == "tessera serve"
    assert make(tmp_path).stdout == "tessera serve\n"


def test_what_came_with_a_pull_is_installed(tmp_path: Path) -> None:
    make(tmp_path)
    known = tmp_path / "venv" / "modules"
    known.write_text(known.read_text().replace("engine/session.py\n", ""))
    assert make(tmp_path).stdout.startswith("Installing Tessera")
    assert "engine/session.py\n" in known.read_text()
    assert make(tmp_path).stdout == "tessera serve\n"


def test_an_error_of_the_installation_is_seen_and_ends_it(tmp_path: Path) -> None:
    broken = make(tmp_path, BROKEN="1")
    assert broken.returncode == 2
    assert "error: the compiler failed" in broken.stderr
    assert "tessera serve" not in broken.stdout
    assert make(tmp_path).returncode == 0, "the next call tries again"
