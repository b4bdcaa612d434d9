"""Zeros in blocks that the engine leaves out: float ONNX in, standard ONNX with zeros in its weights out.

`prune` looks at weights alone. `prune_for_photos` looks at photos too, loses far less, and judges what it has made.
"""

from __future__ import annotations

from tessera.engine.pruning.blocks import BLOCK, Block, block_energies
from tessera.engine.pruning.magnitude import prune
from tessera.engine.pruning.pipeline import Pruner, prune_for_photos
from tessera.engine.pruning.report import PruningReport

__all__ = ["BLOCK", "Block", "Pruner", "PruningReport", "block_energies", "prune", "prune_for_photos"]
