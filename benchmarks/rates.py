"""The register peaks of this machine as a row of `engine/rates.py`: `python -m benchmarks.rates`."""

from __future__ import annotations

import time

from tessera import engine
from tessera.engine import _native
from tessera.engine.machine import cpu_name, cpu_vendor

# The best of so many: what other processes take away is no property of the CPU.
_RUNS = 8


def main() -> None:
    """Prints the row."""
    peaks = [max(engine.measure_peak(kind) for _ in range(_RUNS)) / 1e9 for kind in ("int8", "bf16", "fp32")]
    figures = ", ".join(f"{peak:.3g}" for peak in peaks)
    origin = f"{time.strftime('%Y-%m-%d')}, {cpu_name()}"
    print(f'"{_native.isa()}": Rates({figures}, "{origin}"),  # {cpu_vendor()}')


if __name__ == "__main__":
    main()
