"""What loading a model costs: time with a warm file cache, and memory above the interpreter with numpy and onnx.

    .venv/bin/python -m benchmarks.load optimised.onnx --backend cpu

Every figure comes from a fresh process. Resident memory is read when the session is ready and again after one image;
`peak` is the highest it ever was up to then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median

_PROBE = """
import json, sys, time
import numpy, onnx

def megabytes(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) / 1024

before = megabytes("VmRSS")
from tessera import engine

start = time.perf_counter()
session = engine.load(sys.argv[1], backend=sys.argv[2], threads=int(sys.argv[3]) or None)
seconds = time.perf_counter() - start
ready = megabytes("VmRSS") - before
info = session.describe()
session.run(numpy.zeros([size or 1 for size in info.inputs[0].shape], numpy.float32))
used, peak = megabytes("VmRSS") - before, megabytes("VmHWM") - before
print(json.dumps({"seconds": seconds, "ready_mb": ready, "used_mb": used, "peak_mb": peak}))
"""


def measure(model: str, backend: str, threads: int) -> dict[str, float]:
    """One load in a process of its own."""
    command = [sys.executable, "-c", _PROBE, model, backend, str(threads)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an .onnx file")
    parser.add_argument("--backend", default="cpu", choices=["auto", "cpu", "onnxruntime"])
    parser.add_argument("--threads", type=int, default=0, help="0: every core that this process may use")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    measure(arguments.model, arguments.backend, arguments.threads)  # warms the file cache
    rows = [measure(arguments.model, arguments.backend, arguments.threads) for _ in range(arguments.runs)]
    figures = {key: median(row[key] for row in rows) for key in rows[0]}
    print(f"load   {figures['seconds']:6.3f} s (median of {arguments.runs})")
    print(f"memory {figures['ready_mb']:6.1f} MB when ready, {figures['used_mb']:.1f} MB after an image")
    print(f"peak   {figures['peak_mb']:6.1f} MB")


if __name__ == "__main__":
    main()
