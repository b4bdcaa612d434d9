"""Import a model file: an ONNX graph, or the state dict of a ResNet."""

from __future__ import annotations

import argparse

from tessera.app.commands.models.places import destination, tell
from tessera.app.settings import Settings
from tessera.models.importing.importer import ImportOptions, add_model


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Import, and print where the model is."""
    options = ImportOptions(
        name=arguments.name,
        labels=arguments.labels,
        mean=arguments.mean,
        std=arguments.std,
        size=arguments.image_size,
        resize=arguments.resize,
        interpolation=arguments.interpolation,
    )
    tell(add_model(arguments.path, destination(arguments, settings), options))
    return 0
