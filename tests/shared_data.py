"""Where the real weights and photos live, and the marker for tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(
    os.environ.get("TESSERA_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
).resolve()

requires_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(),
    reason=f"real photos and weights are not at {SHARED_DATA} (set TESSERA_SHARED_DATA to their folder)",
)
