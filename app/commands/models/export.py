"""Export a network of torchvision or timm to ONNX, as a model folder. Needs torch: the extra `export`."""

from __future__ import annotations

import argparse

from tessera.app.commands.models.places import destination, tell
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.settings import Settings
from tessera.models.importing.export import export_model
from tessera.models.importing.importer import ImportOptions


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Export, and print where the model is."""
    with ProgressDisplay() as display:
        package = export_model(
            arguments.publisher,
            arguments.network,
            destination(arguments, settings),
            weights=arguments.weights,
            options=ImportOptions(name=arguments.name, labels=arguments.labels, size=arguments.image_size),
            progress=display,
        )
    tell(package)
    return 0
