"""OpenVINO as the peers run it, without a server: median seconds of a batch and of one image, as JSON.

python -m benchmarks.serving.peers.alone BATCH SECONDS
"""

import json
import sys
import time
from statistics import median

import numpy as np

from benchmarks.serving.peers.pipeline import Classifier, Decoded


def main() -> None:
    batch, seconds = int(sys.argv[1]), float(sys.argv[2])
    classifier = Classifier()
    photos = [
        Decoded(pixels, 0.0, 0.0) for pixels in np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), "u1")
    ]
    figures = []
    for count in (batch, 1):
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            started = time.perf_counter()
            classifier.run(photos[:count])
            times.append(time.perf_counter() - started)
        figures.append(median(times))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
