"""What a count of right answers proves: intervals and tests for shares."""

from __future__ import annotations

import math

# Quantile of the normal distribution for two-sided 95 %.
_Z = 1.959963984540054


def wilson(successes: int, count: int, z: float = _Z) -> tuple[float, float]:
    """Wilson score interval of a share, 95 % by default; (0, 1) when nothing was counted.

    Formula: Wilson 1927, (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). Unlike p ± z sqrt(p(1-p)/n) it stays
    inside [0, 1] and does not shrink to nothing at shares of 0 and 1.
    """
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == count else centre + half


def sign_test(lost: int, gained: int) -> float:
    """Two-sided p-value of the exact sign test, which is McNemar's exact test for two classifiers on the same photos.

    Of photos that exactly one of the two gets right, each is a fair coin while they are equally good:
    p = 2 P(X <= min(lost, gained)) with X ~ Bin(lost + gained, 1/2), at most 1.

    Args:
        lost: photos that only the first gets right.
        gained: photos that only the second gets right.
    """
    count = lost + gained
    if count == 0:
        return 1.0
    log_half = -count * math.log(2)
    tail = math.fsum(
        math.exp(math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) + log_half)
        for k in range(min(lost, gained) + 1)
    )
    return min(1.0, 2 * tail)
