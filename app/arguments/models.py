"""Arguments of `tessera models`, by action. The docstring of each function is what --help says of its action."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tessera.app.arguments.kinds import at_least_one, decibels, gate, numbers, pixels, share, size, some, triple
from tessera.app.arguments.parser import Parser
from tessera.app.arguments.settings import MODEL_SETTINGS, PLACES, RUN_SETTINGS, add_settings_flags
from tessera.models.preprocessing.transform import INTERPOLATIONS


def listing(parser: Parser) -> None:
    """List the bundled model and your own, or those in a folder of models."""
    add_settings_flags(parser, PLACES)


def show(parser: Parser) -> None:
    """Show all that is known of a model: where it lies, how it sees photos, what its variants are made from."""
    _add_name(parser, "size")


def build(parser: Parser) -> None:
    """Build a model's variants into the cache, ahead of its first start."""
    add_settings_flags(parser, (*MODEL_SETTINGS, "size"))


def pull(parser: Parser) -> None:
    """Download an official model, checked against its pinned SHA-256."""
    parser.add_argument("name", metavar="NAME", help="one of the models below")
    parser.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        default=[],
        help="address of the same file to try first; with a slash at its end, of a folder that holds it; repeatable",
    )
    parser.add_argument("--catalogue", metavar="FILE", type=Path, help="a catalogue of your own in place of this one")
    _add_import_flags(parser)

    def describe() -> None:
        from tessera.models.importing.catalogue import read_catalogue

        names = "\n".join(f"  {name:<24} {entry.description}" for name, entry in read_catalogue().items())
        parser.epilog = f"models:\n{names}"

    parser.describe_later(describe)


def add(parser: Parser) -> None:
    """Import a model file: an ONNX graph, or the state dict of a ResNet."""
    parser.add_argument("path", metavar="PATH", type=Path, help="ONNX graph, or state dict of a ResNet")
    parser.add_argument("--name", help="the model's name (default: the file's)")
    parser.add_argument(
        "--mean", type=triple, metavar="R,G,B", help="mean of images in 0..1 units (default ImageNet's)"
    )
    parser.add_argument("--std", type=triple, metavar="R,G,B", help="standard deviation, likewise")
    parser.add_argument(
        "--size",
        dest="image_size",
        type=size,
        metavar="PIXELS",
        help="the network's input: 288, or height x width 224x320 (default: the graph's, or 224)",
    )
    parser.add_argument(
        "--resize", type=pixels, metavar="PIXELS", help="a photo's shorter side (default 8/7 of the size)"
    )
    parser.add_argument("--interpolation", choices=INTERPOLATIONS, help="filter of the scaling (default bilinear)")
    _add_import_flags(parser)


def export(parser: Parser) -> None:
    """Export a network of torchvision or timm to ONNX, as a model folder. Needs torch: the extra `export`."""
    parser.add_argument("publisher", choices=("torchvision", "timm"), help="who defines the network")
    parser.add_argument("network", metavar="NAME", help="what they call it: resnet50, or resnet50.a1_in1k of timm")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="state dict (.pth, .pt, .safetensors), or torchvision's name for weights (default: the publisher's)",
    )
    parser.add_argument("--name", help="the model's name (default: the publisher's and the network's)")
    parser.add_argument(
        "--size",
        dest="image_size",
        type=size,
        metavar="PIXELS",
        help="the network's input: 288, or height x width 224x320 (default: the publisher's)",
    )
    _add_import_flags(parser)


def quantise(parser: Parser) -> None:
    """Quantise a model to int8 from photos like those it will see, and prove that it is still right.

    The tensors whose eight bits hurt most, and the layers that read them, are kept in bf16 or fp32 until the result
    meets the gate on photos that nothing was fitted to. From its next start on, the service builds the optimised
    variant from this; `tessera models reset` undoes it. A result that fails the gate is put aside and used only after
    --accept.
    """
    parser.add_argument("photos", metavar="PHOTOS", type=Path, nargs="?", help="folder of photos; 100 to 500 do well")
    parser.add_argument(
        "--accept",
        action="store_true",
        help="use the result even if it fails the gate; without PHOTOS: use the last one that failed it",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=at_least_one,
        help="most photos to use, spread evenly over the folder (default, and at most, 160)",
    )
    parser.add_argument(
        "--method",
        choices=("auto", "mse", "percentile", "entropy", "max"),
        default="auto",
        help="how activation ranges are chosen (default auto: each by the error it causes)",
    )
    parser.add_argument("--min-sqnr", metavar="DB", type=decibels, help="gate (default 30 dB)")
    parser.add_argument(
        "--min-agreement",
        metavar="SHARE",
        type=share,
        help="gate: least share of photos with the same first class (default 0.98)",
    )
    parser.add_argument(
        "--fallback",
        choices=("bf16", "fp32", "none"),
        default="bf16",
        help="precision of what is kept out of int8 until the gate holds (default bf16); none: int8 everywhere",
    )
    parser.add_argument("--equalise", action="store_true", help="cross-layer equalisation where it lowers the error")
    parser.add_argument("--no-bias-correction", action="store_true", help="leave biases as they are")
    parser.add_argument(
        "--into-folder", action="store_true", help="write calibration.json into the model folder, not into the cache"
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the whole report there, as JSON")
    add_settings_flags(parser, (*MODEL_SETTINGS, "size", "threads"))


def prune(parser: Parser) -> None:
    """Set the blocks of a model's weights to zero that its answers need least, and prove that they are still right.

    What comes of it is another model, in standard ONNX; our engine leaves out blocks of zeros, on every CPU without
    AMX. The model that was given stays as it is, and nothing is written where the gate does not hold.
    """
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of photos; 100 to 500 do well")
    parser.add_argument(
        "--share",
        metavar="SHARE",
        type=some,
        help="of the multiplications in blocks, more than 0, at most 1 (default: the largest that meets the gate)",
    )
    parser.add_argument(
        "--min-agreement",
        metavar="SHARE",
        type=share,
        help="gate: least share of photos with the same first class (default 0.98)",
    )
    parser.add_argument("--min-sqnr", metavar="DB", type=decibels, help="gate (default: none)")
    parser.add_argument(
        "--fine-tune",
        metavar="FOLDER",
        type=Path,
        help="train what is left on the photos of a folder until it answers as before; needs torch: the extra `export`",
    )
    parser.add_argument(
        "--epochs", metavar="N", type=at_least_one, help="how often --fine-tune goes through them (default 4)"
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=at_least_one,
        help="most of PHOTOS to use, spread evenly over the folder (default, and at most, 160)",
    )
    parser.add_argument("--name", help="the new model's name (default: the model's, and -pruned)")
    parser.add_argument("--into", metavar="FOLDER", type=Path, help="folder of models to put it in")
    add_settings_flags(parser, (*MODEL_SETTINGS, "threads"))


def reset(parser: Parser) -> None:
    """Undo every quantisation of a model that was made on this machine: back to what its folder came with."""
    _add_name(parser, "size")


def convert(parser: Parser) -> None:
    """Make the .om files of both variants for an Ascend chip, or all that is needed to make them elsewhere."""
    parser.add_argument("--target", metavar="SOC", required=True, help="'Ascend' and the name that npu-smi shows")
    parser.add_argument("--batches", type=numbers, metavar="N,N,...", help="batch sizes (1,2,4,8,16)")
    parser.add_argument("--int8", metavar="PHOTOS", type=Path, help="optimised in int8: folder of photos for AMCT")
    parser.add_argument("--operators", metavar="FOLDER", type=Path, help="optimised with our own convolution: folder")
    parser.add_argument("--into", metavar="FOLDER", type=Path, help="folder of models to put it in")
    add_settings_flags(parser, MODEL_SETTINGS)


def evaluate(parser: Parser) -> None:
    """Count how often each variant is right, and how far it is from the baseline, over labelled photos.

    FOLDER holds one folder per class, named by wnid, label or index, or files whose names begin with the index of
    their class and an underscore. With --list, it is what the paths of an ImageNet-style list are relative to.
    """
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="labelled photos")
    parser.add_argument(
        "--list", metavar="FILE", type=Path, dest="listed", help="lines 'path index' in place of folders"
    )
    parser.add_argument(
        "--wnids",
        metavar="FILE",
        type=Path,
        help="names of the class folders, one per line in the order of the classes (default: the model's wnids.txt)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results there")
    parser.add_argument(
        "--resume", metavar="STATE", type=Path, help="keep results there as they come, and go on from what it holds"
    )
    parser.add_argument(
        "--gate",
        metavar="MEASURE=POINTS",
        type=gate,
        action="append",
        default=[],
        dest="gates",
        help="exit with 1 where a variant loses more percentage points than that against the first one, such as "
        "top5=0.5 or top1=1; may be given several times",
    )
    add_settings_flags(parser, (*RUN_SETTINGS, "decode_threads", "max_pixels", "decode_scale"))


def remove(parser: Parser) -> None:
    """Remove a model of the library, or what the cache keeps of a model file, with all that was built of it."""
    _add_name(parser)


# Action -> what it does, and who describes its arguments.
ACTIONS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "list": ("list the bundled model and your own, or those in a folder of models", listing),
    "show": ("show all that is known of a model", show),
    "build": ("build a model's variants into the cache", build),
    "pull": ("download an official model, checked against its pinned SHA-256", pull),
    "add": ("import a model file (.onnx, .safetensors, .pth, .pt)", add),
    "export": ("export a network of torchvision or timm (needs torch)", export),
    "quantise": ("quantise a model to int8, with an accuracy gate", quantise),
    "prune": ("leave out the weights of a model that count least, with an accuracy gate", prune),
    "reset": ("undo the quantisation of a model", reset),
    "convert": ("make the .om files of both variants for an Ascend chip", convert),
    "evaluate": ("accuracy of every variant over labelled photos", evaluate),
    "remove": ("remove a model of the library, with all that was built of it", remove),
}


def _add_name(parser: Parser, *settings: str) -> None:
    parser.add_argument("name", metavar="NAME", type=Path, help="the model, by name or folder, or a model file")
    add_settings_flags(parser, (*PLACES, *settings))


def _add_import_flags(parser: Parser) -> None:
    """Add the flags of every action that makes a model folder."""
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help='class names, one per line (default: "class 0", ...)'
    )
    parser.add_argument("--into", metavar="FOLDER", type=Path, help="folder of models to put it in")
    add_settings_flags(parser, PLACES)
