"""Arguments of the commands that run a model. The docstring of each function is what --help says of its command."""

from __future__ import annotations

from pathlib import Path

from tessera.app.arguments.kinds import at_least_one
from tessera.app.arguments.parser import Parser
from tessera.app.arguments.settings import RUN_SETTINGS, add_settings_flags


def serve(parser: Parser) -> None:
    """Serve a model over HTTP. The first start builds the model's variants, which takes a moment."""
    parser.add_argument(
        "what",
        metavar="WHAT",
        nargs="?",
        type=Path,
        help="a name that `tessera models list` shows, a model folder, a file .onnx, .safetensors, .pth or .pt, or "
        "Triton's NAME/1/model.onnx; the same as --model-path",
    )
    add_settings_flags(parser)


def classify(parser: Parser) -> None:
    """Label photos on this machine, without a server: files, folders, tar files, or lists of paths."""
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "files",
        metavar="PHOTOS",
        nargs="*",
        default=[],
        type=Path,
        help="image file, folder, .tar file, .txt file with a path a line, or - for such a list on standard input",
    )
    images.add_argument("--sample", action="store_true", help="label three drawings that come with Tessera")
    parser.add_argument("--variant", help="who answers (default: the default variant)")
    parser.add_argument("--top-k", metavar="K", help="labels per image (default 5)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print the JSON that POST /v1/classify would answer")
    shape.add_argument("--output", metavar="FILE", type=Path, help="write .jsonl, .csv or .parquet instead of printing")
    parser.add_argument("--resume", action="store_true", help="go on with an --output that did not end")
    add_settings_flags(parser, (*RUN_SETTINGS, "default_variant", "decode_threads", "max_pixels", "decode_scale"))


def bench(parser: Parser) -> None:
    """Compare the variants' speed: interleaved runs in one process, medians and means, ratios."""
    parser.add_argument("--rounds", type=at_least_one, default=15, help="timed rounds per batch size (default 15)")
    parser.add_argument("--images", type=Path, help="folder of photos to run (default: generated images)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every time measured there")
    add_settings_flags(parser, RUN_SETTINGS)


def profile(parser: Parser) -> None:
    """Time every layer of each variant, against what the machine could do."""
    parser.add_argument("--batch", type=int, choices=range(1, 17), default=16, metavar="N", help="images (default 16)")
    parser.add_argument("--runs", type=int, choices=range(1, 1001), default=15, metavar="N", help="runs (default 15)")
    parser.add_argument("--images", type=Path, help="folder of photos to run (default: generated images)")
    parser.add_argument("--variant", help="only this variant (default: all, side by side)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    parser.add_argument("--trace", metavar="FILE", type=Path, help="also write a trace of one run, for Perfetto")
    add_settings_flags(parser, RUN_SETTINGS)


def report(parser: Parser) -> None:
    """Measure everything of a model on this machine, and write it as one HTML file to pass on."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=Path("report.html"), help="(default report.html)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    parser.add_argument(
        "--photos", metavar="FOLDER", type=Path, help="labelled photos to count accuracy on; see models evaluate"
    )
    parser.add_argument("--images", metavar="FOLDER", type=Path, help="what to time with (default: those or generated)")
    parser.add_argument(
        "--rounds", type=int, choices=range(6, 1001), default=15, metavar="N", help="of every timing (default 15)"
    )
    add_settings_flags(parser, RUN_SETTINGS)
