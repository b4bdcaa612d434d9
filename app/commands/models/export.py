"""Export a network of torchvision or timm to ONNX, as a model folder. Needs torch: the extra `export`."""

from __future__ import annotations

import argparse

from tessera.app.commands.models.places import add_import_flags, destination, pixels, tell
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.settings import Settings
from tessera.models.export import export_model
from tessera.models.importer import ImportOptions

HELP = "export a network of torchvision or timm (needs torch)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the action's arguments."""
    parser.add_argument("publisher", choices=("torchvision", "timm"), help="who defines the network")
    parser.add_argument("network", metavar="NAME", help="what they call it: resnet50, or resnet50.a1_in1k of timm")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="state dict (.pth, .pt, .safetensors), or torchvision's name for weights (default: the publisher's)",
    )
    parser.add_argument("--name", help="the model's name (default: the publisher's and the network's)")
    parser.add_argument("--size", type=pixels, metavar="PIXELS", help="the network's input (default: the publisher's)")
    add_import_flags(parser)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Export, and print where the model is."""
    with ProgressDisplay() as display:
        package = export_model(
            arguments.publisher,
            arguments.network,
            destination(arguments, settings),
            weights=arguments.weights,
            options=ImportOptions(name=arguments.name, labels=arguments.labels, size=arguments.size),
            progress=display,
        )
    tell(package)
    return 0
