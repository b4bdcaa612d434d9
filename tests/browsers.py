"""A real Chromium for tests: how it is started, and which tests need it."""

from __future__ import annotations

import shutil

import pytest

# Nothing but what a test asks for: no updates, no telemetry, no first run.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream"]

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="the program chromium is not installed (Debian package: chromium)"
)
