"""The folder of an installed CANN operator package, checked before ATC is started on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tessera.engine.errors import ModelError
from tessera.models.ascend.graphs import OWN_OPERATOR

_TBE = Path("op_impl") / "ai_core" / "tbe"
_LIBRARIES = (Path("op_proto"), Path("framework") / "onnx")
# Names of chips, and Short_SoC_version of their files in CANN's data/platform_config. Ascend910B without a number is of
# the first generation.
_FAMILIES = {
    r"Ascend310": "ascend310",
    r"Ascend310B\d": "ascend310b",
    r"Ascend310P\d": "ascend310p",
    r"Ascend910(A|B|ProA|ProB|PremiumA)": "ascend910",
    r"Ascend910B\d\w*": "ascend910b",
    r"Ascend910_93\w*": "ascend910_93",
    r"Ascend910_95\w*": "ascend910_95",
    r"Ascend910_55\w*": "ascend910_55",
}


def family(soc: str) -> str:
    """The name of a chip's folder in operator packages: Ascend310B1 -> ascend310b, Ascend910B -> ascend910.

    Raises:
        ModelError: no such chip is known.
    """
    for names, folder in _FAMILIES.items():
        if re.fullmatch(names, soc):
            return folder
    raise ModelError(f"Where operator packages keep what is for {soc} is not known; convert without --operators.")


def check_operator_package(folder: Path, soc: str) -> None:
    """Check that a folder is `vendors/NAME` of an installed package and knows our operator for the chip.

    Raises:
        ModelError: something is missing; the message names it and how to install the package.
    """
    name = family(soc)
    info = folder / _TBE / "config" / name / f"aic-{name}-ops-info.json"
    try:
        operators = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _complaint(folder, f"{info} cannot be read ({error})") from error
    if not isinstance(operators, dict) or OWN_OPERATOR not in operators:
        raise _complaint(folder, f"{info} does not describe {OWN_OPERATOR}")
    # CANN makes this name of the path's last part (hicann/ge, configuration.cc); the path it gets has no links.
    implementation = folder / _TBE / f"{folder.resolve().name}_impl"
    if not implementation.is_dir():
        raise _complaint(folder, f"there is no {implementation}; CANN makes that name of the folder's own")
    for library in _LIBRARIES:
        if not any((folder / library).rglob("*.so")):
            raise _complaint(folder, f"there is no library in {folder / library}")


def _complaint(folder: Path, problem: str) -> ModelError:
    return ModelError(
        f"{folder} is no installed package of Tessera's operators: {problem}. Build and install it as "
        "models/ascend/custom_conv/README.md says; a folder that was renamed must be built anew."
    )
