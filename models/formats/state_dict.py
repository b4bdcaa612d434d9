"""Keys of state dicts: what wrappers of training code add to them, and what inference does not need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

Tensor = TypeVar("Tensor")

# Put before every key by DataParallel, torch.compile, Lightning and others.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")

# What BatchNorm and averaged models count.
_COUNTERS = ("num_batches_tracked", "n_averaged")


def is_counter(key: str) -> bool:
    """Whether a tensor only counts training steps."""
    return key.rpartition(".")[2] in _COUNTERS


def plain_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the network's own keys: common prefixes removed, counters left out."""
    plain = {key: tensor for key, tensor in state.items() if not is_counter(key)}
    while plain and (prefix := _shared_prefix(plain)):
        plain = {key.removeprefix(prefix): tensor for key, tensor in plain.items()}
    return plain


def _shared_prefix(keys: Collection[str]) -> str:
    return next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in keys)), "")
