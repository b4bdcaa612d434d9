"""What binds a layer, by numbers alone."""

from __future__ import annotations

import pytest

from tessera.engine.peak import ReadRates
from tessera.engine.profile import LayerCost
from tessera.engine.session import LayerTiming

_READS = ReadRates(l2_bytes=1000, within=1e4, beyond=1e3)


def timing(seconds: float, macs: int, activations: int, weights: int = 0, batch: int = 1) -> LayerTiming:
    """A layer on a machine of 100 MAC/s that reads 10,000 bytes a second within 1,000 bytes of L2, 1,000 beyond."""
    cost = LayerCost("1x1 @7", macs, activations, weights)
    return LayerTiming.measured("layer", "Conv", "kernel", seconds, batch, cost, 100.0, _READS)


@pytest.mark.parametrize(
    ("seconds", "macs", "activations", "bound"),
    [
        (1.0, 90, 1000, "products"),  # 0.9 s of products, 0.1 s of reading within L2
        (1.0, 30, 800, "other"),  # 0.3 s and 0.08 s
        (2.0, 30, 1500, "memory"),  # 0.3 s and 1.5 s: behind L2
        (3.0, 150, 1001, "products"),  # 1.5 s are half of the time, 1.001 s are less
        (3.1, 150, 1001, "other"),
        (1.0, 0, 8000, "memory"),  # more than the rate allows is still memory
        (1.0, 0, 100, "other"),
    ],
)
def test_the_larger_limit_binds_where_it_explains_half_of_the_time(
    seconds: float, macs: int, activations: int, bound: str
) -> None:
    assert timing(seconds, macs, activations).bound == bound


def test_a_batch_reads_its_activations_each_and_the_weights_once() -> None:
    """900 bytes of one image and the weights stay in L2, whatever the batch."""
    assert timing(2.0, 0, 600, weights=300, batch=10).memory_share == pytest.approx(6300 / 1e4 / 2)


def test_nothing_binds_where_nothing_was_measured() -> None:
    cost = LayerCost("1x1 @7", 90, 1000, 0)
    assert LayerTiming.measured("layer", "Conv", "kernel", 1.0, 1, cost, 100.0).bound is None
    assert timing(1.0, 0, 0).bound is None
