"""Has KServe's own models take the files of deploy/kserve: `make kserve`, where the package kserve is installed.

    python -m tests.kserve_models FILE...

Every key has to be known to the model of its object, and of the right kind. The models ask for what is required.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kserve
import kubernetes.client.models
import yaml

# Kind, and the version that it is of, to KServe's model.
MODELS = {
    ("ClusterServingRuntime", kserve.constants.KSERVE_V1ALPHA1): "V1alpha1ClusterServingRuntime",
    ("InferenceService", kserve.constants.KSERVE_V1BETA1): "V1beta1InferenceService",
}
PLAIN: dict[str, Any] = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def make(kind: str, value: Any, where: str) -> Any:
    """What a value of a file is in the terms of the models.

    Args:
        kind: A type as the models write it, such as list[V1Container].
        value: What the file has.
        where: Its place there, for messages.

    Raises:
        ValueError: It is of another kind, lacks something, or has what KServe does not know.
    """
    if of := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        return [make(of[1], each, f"{where}[{index}]") for index, each in enumerate(expect(list, value, where))]
    if of := re.fullmatch(r"[Dd]ict[\[(]str, ?(.+)[\])]", kind):
        return {key: make(of[1], each, f"{where}.{key}") for key, each in expect(dict, value, where).items()}
    if kind in PLAIN:
        return expect(PLAIN[kind], value, where)
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind)
    attributes = {key: attribute for attribute, key in model.attribute_map.items()}
    given = expect(dict, value, where)
    if unknown := given.keys() - attributes.keys():
        raise ValueError(f"{where} has no {', '.join(sorted(unknown))} in {kind}")
    made = {attributes[key]: make(model.openapi_types[attributes[key]], given[key], f"{where}.{key}") for key in given}
    try:
        return model(**made)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def expect(kind: Any, value: Any, where: str) -> Any:
    """A value that is of this kind; whether is no number.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{where} is {value!r}, which is of another kind")
    return value


def main() -> int:
    """Check the files that are named; 1 where one is not as KServe wants it."""
    wrong = 0
    for name in sys.argv[1:]:
        for found in yaml.safe_load_all(Path(name).read_text(encoding="utf-8")):
            kind, group = found["kind"], found["apiVersion"]
            try:
                if (kind, group) not in MODELS:
                    raise ValueError(f"there is none in {group}")
                make(MODELS[kind, group], found, kind)
                print(f"{name}: {kind} as KServe {version('kserve')} wants it")
            except ValueError as error:
                print(f"{name}: {kind}: {error}")
                wrong += 1
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
