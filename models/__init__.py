"""The models that Tessera serves: what they are, where they lie, and how their variants are built.

A model is a folder. Either it has a `model.toml`, or it holds one `*.onnx` or `*.onnx.gz` and a `labels.txt`.
"""

from __future__ import annotations

from models.preprocessing import Preprocessing
from models.registry import Model, ModelSummary, Variant, list_models, open_model

__all__ = ["Model", "ModelSummary", "Preprocessing", "Variant", "list_models", "open_model"]
