"""What the parts reach without HTTP around them, on the same cores, and the labels that fp32 gives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.serving.client import Job
from benchmarks.serving.phases import send
from benchmarks.serving.process import REPOSITORY, ServerTree, free_port
from benchmarks.serving.servers import PEERS, Files, start
from tessera import engine
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.registry import open_model

BATCH = 16


@dataclass
class Alone:
    """One round's rates.

    Attributes:
        decode: Photos per second on all cores.
        decode_one: Seconds for a photo on an idle machine, median.
        engine: Images per second of our engine at batch 16.
        engine_one: Seconds for one image.
        openvino: Images per second of OpenVINO at batch 16, as the peers run it.
        openvino_one: Seconds for one image.
        echo: Round trip to a server that does nothing, seconds, median.
    """

    decode: float
    decode_one: float
    engine: float
    engine_one: float
    openvino: float
    openvino_one: float
    echo: float


class Parts:
    """Our own parts, opened once.

    Args:
        files: The models.
        photos: What is decoded and classified.
        cores: Threads.
    """

    def __init__(self, files: Files, photos: list[Path], cores: int) -> None:
        self._files = files
        self._cores = cores
        self._photos = photos
        self._bodies = [photo.read_bytes() for photo in photos]
        self._decoder = ImageDecoder(Preprocessing(), max_pixels=64 * 1024 * 1024)
        self._pixels = np.empty((len(photos), *self._decoder.shape), np.uint8)
        for body, row in zip(self._bodies, self._pixels, strict=True):
            self._decoder.decode(body, row)
        self._variants = open_model(files.model, cache=files.cache).variants

    def reference(self) -> list[int]:
        """The label of each photo by the fp32 graph on ONNX Runtime."""
        session = engine.load(self._variants["baseline"].path, backend="onnxruntime", threads=self._cores)
        labels = [int(session.run(row[None]).argmax()) for row in self._pixels]
        session.close()
        return labels

    def measure(self, seconds: float) -> Alone:
        """Every rate, each for about `seconds`."""
        session = engine.load(self._variants["optimised"].path, backend="cpu", threads=self._cores)
        batches = self._rate(lambda turn: session.run(self._rows(turn, BATCH)), seconds)
        ones = self._rate(lambda turn: session.run(self._rows(turn, 1)), seconds)
        session.close()
        openvino, openvino_one = self._openvino(seconds)
        decode, decode_one = self._decode(seconds)
        return Alone(decode, decode_one, BATCH / batches, ones, openvino, openvino_one, self._echo(seconds))

    def _rows(self, turn: int, count: int) -> np.ndarray:
        begin = turn * count % (len(self._pixels) - count + 1)
        return self._pixels[begin : begin + count]

    def _rate(self, run: Callable[[int], object], seconds: float) -> float:
        """Median seconds of a call."""
        run(0)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            started = time.perf_counter()
            run(len(times) + 1)
            times.append(time.perf_counter() - started)
        return median(times)

    def _decode(self, seconds: float) -> tuple[float, float]:
        rows = [np.empty(self._decoder.shape, np.uint8) for _ in range(self._cores)]

        def one_thread(number: int) -> int:
            done, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                self._decoder.decode(self._bodies[(number + done * self._cores) % len(self._bodies)], rows[number])
                done += 1
            return done

        started = time.perf_counter()
        with ThreadPoolExecutor(self._cores) as pool:
            done = sum(pool.map(one_thread, range(self._cores)))
        rate = done / (time.perf_counter() - started)
        one = self._rate(lambda turn: self._decoder.decode(self._bodies[turn % len(self._bodies)], rows[0]), seconds)
        return rate, one

    def _openvino(self, seconds: float) -> tuple[float, float]:
        peer = next((peer for peer in PEERS if (self._files.environments / peer / "bin/python").exists()), None)
        if peer is None:
            return float("nan"), float("nan")
        begun = start(peer, self._files, cores=self._cores, deadline=10.0)
        command = [begun.command[0] if peer != "bentoml" else str(Path(begun.command[0]).with_name("python"))]
        command += ["-m", "benchmarks.serving.peers.alone", str(BATCH), str(seconds)]
        environment = {"PYTHONPATH": str(REPOSITORY), **begun.settings}
        run = subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True, text=True)
        batches, ones = json.loads(run.stdout)
        return BATCH / batches, ones

    def _echo(self, seconds: float) -> float:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.serving.echo", str(port)]
        with ServerTree(command, {}, Path("/dev/null")):
            job = Job(port, "/", [str(photo) for photo in self._photos], "closed", 0.2)
            while not any(record.status == 200 for record in send(job).records):
                time.sleep(0.1)
            load = send(replace(job, seconds=seconds))
        return median(record.seconds for record in load.records if record.status == 200)
