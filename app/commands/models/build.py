"""Build a model's variants into the cache, ahead of its first start."""

from __future__ import annotations

import argparse

from tessera.app.commands.progress import ProgressDisplay
from tessera.app.served.loading import open_configured_model
from tessera.app.settings import Settings


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Build, and print where each variant is."""
    with ProgressDisplay() as display:
        model = open_configured_model(settings, display)
    for name, variant in sorted(model.variants.items()):
        print(f"{model.name} {name} ({variant.precision}): {variant.path}")
    return 0
