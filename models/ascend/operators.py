"""The folder of an installed CANN operator package, checked before ATC is started on it."""

from __future__ import annotations

import json
from pathlib import Path

from tessera.engine.errors import ModelError
from tessera.models.ascend.graphs import OWN_OPERATOR

_CONFIGURATIONS = Path("op_impl") / "ai_core" / "tbe" / "config"
_LIBRARIES = (Path("op_proto"), Path("framework") / "onnx")


def family(soc: str) -> str:
    """The name of a chip's folder in operator packages: Ascend310B1 -> ascend310b, Ascend310P3 -> ascend310p.

    Those of the 910 keep their name as CANN 6.0 has it: Ascend910A -> ascend910, Ascend910B3 -> ascend910b.
    """
    digits = soc.removeprefix("Ascend")
    number = "".join(c for c in digits[:3] if c.isdigit())
    letter = digits[len(number) : len(number) + 1].lower()
    return f"ascend{number}{letter if letter in ('b', 'p') else ''}"


def check_operator_package(folder: Path, soc: str) -> None:
    """Check that a folder is `vendors/NAME` of an installed package and knows our operator for the chip.

    Raises:
        ModelError: something is missing; the message names it and how to install the package.
    """
    name = family(soc)
    info = folder / _CONFIGURATIONS / name / f"aic-{name}-ops-info.json"
    try:
        operators = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _complaint(folder, f"{info} cannot be read ({error})") from error
    if not isinstance(operators, dict) or OWN_OPERATOR not in operators:
        raise _complaint(folder, f"{info} does not describe {OWN_OPERATOR}")
    for library in _LIBRARIES:
        if not any((folder / library).rglob("*.so")):
            raise _complaint(folder, f"there is no library in {folder / library}")


def _complaint(folder: Path, problem: str) -> ModelError:
    return ModelError(
        f"{folder} is no installed package of Tessera's operators: {problem}. Build and install it as "
        "models/ascend/custom_conv/README.md says, then name the folder vendors/tessera."
    )
