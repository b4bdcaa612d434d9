"""Post-training quantisation: float ONNX in, standard QDQ ONNX out.

The work is split where a user may want to stop: `calibrate` looks at images and returns numbers (activation ranges
and bias corrections, a small JSON file), `write_quantised` turns a float model and those numbers into a QDQ model
without looking at any image. `quantize` does both.
"""

from __future__ import annotations

from tessera.engine.quantize.calibration import Calibration
from tessera.engine.quantize.pipeline import calibrate, quantize
from tessera.engine.quantize.report import Gate, Report
from tessera.engine.quantize.rounding.activations import ActivationRange
from tessera.engine.quantize.writer import quantised_model, write_quantised

__all__ = [
    "ActivationRange",
    "Calibration",
    "Gate",
    "Report",
    "calibrate",
    "quantised_model",
    "quantize",
    "write_quantised",
]
