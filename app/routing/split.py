"""Weighted split of traffic between variants, sticky by a key. Stateless: every process decides the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from tessera.app.errors import InvalidParameterError

KEY_HEADER = "X-Experiment-Key"
_UNIT = 2.0**-53


def experiment_key(header_values: Sequence[str]) -> str | None:
    """Read the key of a request.

    Args:
        header_values: Every `X-Experiment-Key` value of the request.

    Returns:
        The key, or None where there is none: an empty one counts as none.

    Raises:
        InvalidParameterError: Several values contradict each other.
    """
    keys = {value.strip() for value in header_values} - {""}
    if len(keys) > 1:
        raise InvalidParameterError(f"The request has several different {KEY_HEADER} headers; send one.")
    return keys.pop() if keys else None


def parse_split(text: str) -> dict[str, float]:
    """Read `optimised=90,baseline=10` into shares that sum to 1.

    Raises:
        ValueError: The text is no such list, a weight is not a positive finite number or 0, or all are 0.
    """
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, separator, number = (part.strip() for part in entry.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not separator or not 0 <= weight <= 1e9:
            raise ValueError(f"{entry.strip()!r} is not VARIANT=WEIGHT with a weight of 0 to 1e9")
        if name in weights:
            raise ValueError(f"{name} is given twice")
        weights[name] = weight
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("every weight is 0")
    return {name: weight / total for name, weight in weights.items()}


class Split:
    """Assigns keys to variants in proportion to weights.

    Weighted rendezvous hashing (Schindelhauer and Schomaker, SPAA 2005): each variant draws an exponential time from
    the key, `-ln(u) / weight`, and the earliest wins. `u` is the first 53 bits of
    SHA-256(`salt` NUL `variant` NUL `key`, UTF-8), plus a half, over 2**53. Hence:

    - exact: a variant wins with probability weight / sum of weights, independently per key;
    - sticky: nothing but salt, weights and key matters; no state, the same in every process and after a restart;
    - monotone: raising one variant's share makes its times earlier and no other's, so no key ever leaves it.

    Args:
        shares: Weight per variant, at least 0, not all 0; only their proportions count.
        salt: Name of the experiment; another salt is an independent assignment.
    """

    def __init__(self, shares: Mapping[str, float], salt: str = "") -> None:
        total = sum(shares.values())
        self.shares = {name: weight / total for name, weight in sorted(shares.items())}
        self._salt = salt

    def assign(self, key: str) -> str:
        """Return the variant of a key."""
        return min(
            (name for name, share in self.shares.items() if share > 0),
            key=lambda name: -math.log(_uniform(self._salt, name, key)) / self.shares[name],
        )


def _uniform(salt: str, variant: str, key: str) -> float:
    """A number in (0, 1) that depends on all three, uniform over keys."""
    # Header values may hold any bytes; surrogates stand for those that are no UTF-8.
    text = f"{salt}\0{variant}\0{key}".encode("utf-8", "surrogatepass")
    bits = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 11
    return (bits + 0.5) * _UNIT
