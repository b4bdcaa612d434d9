"""The version of this package."""

from __future__ import annotations

import importlib.metadata


def service_version() -> str:
    """The installed version of this package."""
    try:
        return importlib.metadata.version("tessera-inference")
    except importlib.metadata.PackageNotFoundError:
        return "unpackaged"
