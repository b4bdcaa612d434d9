"""An .om model behind the interface of all backends."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine.backends.ascend.balancer import FIRST_RETRY_SECONDS, DeviceBalancer, Member
from tessera.engine.backends.ascend.chips import find_chip
from tessera.engine.backends.ascend.errors import AclError, AclFaultError
from tessera.engine.backends.ascend.gears import Chunk, GearTable
from tessera.engine.backends.ascend.images import ImageEncoder
from tessera.engine.backends.ascend.instance import Stages
from tessera.engine.backends.ascend.model import OfflineTensor
from tessera.engine.backends.ascend.omfile import check_om_file
from tessera.engine.backends.ascend.profiling import check_tools, profile_layers
from tessera.engine.backends.ascend.replica import Replica
from tessera.engine.backends.ascend.runtime import Runtime, shared_runtime
from tessera.engine.errors import BackendUnavailableError, DeviceError, InputError, ModelError
from tessera.engine.graph.reader import read_model
from tessera.engine.normalisation import Normalisation
from tessera.engine.profile import LayerCost, layer_costs
from tessera.engine.session import DeviceStatus, LayerTiming, Session, SessionInfo, TensorSpec, unavailable

TIMEOUT_MS = 10_000
_MEASURE_RUNS = 3
_MEASURE_SECONDS = 0.05


class AscendSession(Session):
    """Runs an .om file on every device that this process may see.

    Args:
        path: the .om file.
        graph: the ONNX graph that it was converted from, for its MACs.
        normalisation: what pixels go through where the .om file takes floats.
        int8: whether its convolutions compute in int8, which the file does not tell.
        runtime: AscendCL; the process's own by default.
        devices: which devices; all by default. `ASCEND_RT_VISIBLE_DEVICES` limits what there is.
        instances: how often to load the model on each device, see `Replica`.
        timeout_ms: longest wait for a device to copy or to execute a batch.
        first_retry: seconds until a failed device is tried again.
    """

    def __init__(
        self,
        path: Path,
        *,
        graph: Path | None = None,
        normalisation: Normalisation | None = None,
        int8: bool = False,
        runtime: Runtime | None = None,
        devices: Sequence[int] | None = None,
        instances: int = 1,
        timeout_ms: int = TIMEOUT_MS,
        first_retry: float = FIRST_RETRY_SECONDS,
    ) -> None:
        """Loads the file on every device.

        Raises:
            ModelError: the file is no .om file, is damaged, or is no image classifier.
            DeviceError: a device cannot be opened, or fails.
            BackendUnavailableError: there is no AscendCL on this machine, or no device.
        """
        check_om_file(path)
        self._path = path
        self._normalisation = normalisation
        self._costs = _layer_costs(graph)
        self._macs = sum(cost.macs for cost in self._costs.values())
        self._precision = "int8" if int8 else "fp16"
        self._runtime = runtime or shared_runtime()
        self._instances = instances
        self._timeout_ms = timeout_ms
        self._idle = threading.Condition()
        self._active = 0
        self._closed = False
        indexes = range(self._runtime.device_count) if devices is None else devices
        with ExitStack() as opened:
            replicas = []
            for index in indexes:
                replicas.append(self._open(index))
                opened.callback(replicas[-1].close, timeout_ms)
            description = replicas[0].description
            self._image = ImageEncoder(description.image, normalisation, path)
            self._image_bytes = description.image.bytes
            self._output = description.output
            self._order = description.gears
            self._gears = self._measure(replicas[0], description.image)
            opened.pop_all()
        self._balancer = DeviceBalancer(replicas, self._open, timeout_ms, first_retry)
        self._slots = sum(len(replica.slots) for replica in replicas)
        self._workers = ThreadPoolExecutor(self._slots, thread_name_prefix="tessera-ascend")

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """See `Session.run`. Large batches are split by the measured times of the gears and run on all devices.

        Raises:
            InputError: wrong type, rank or size.
            DeviceError: no device could run it. A device that fails is left out, and its images go to another one.
        """
        return self.run_in_stages(x)[0]

    def run_in_stages(self, x: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], Mapping[str, float]]:
        """See `Session.run_in_stages`. Parts that run side by side, on several devices, count one after the other."""
        with self._in_use():
            self._image.check(x)
            output = np.empty((len(x), *self._output.shape), np.float32)
            chunks = self._gears.split(len(x))
            if len(chunks) == 1:
                return output, self._run_chunk(x, chunks[0], output)._asdict()
            futures = [self._workers.submit(self._run_chunk, x, chunk, output) for chunk in chunks]
            wait(futures)
            parts = [future.result() for future in futures]
            return output, Stages(*map(sum, zip(*parts, strict=True)))._asdict()

    def describe(self) -> SessionInfo:
        """See `Session.describe`. `isa` is the chip, `arena_bytes` the device side of the staging buffers."""
        output = self._output
        return SessionInfo(
            backend="ascend",
            isa=self._runtime.soc_name,
            precision=self._precision,
            threads=1,
            inputs=(self._image.spec,),
            outputs=(TensorSpec(output.name, (None, *output.shape), str(output.dtype)),),
            macs=self._macs,
            arena_bytes=self._slots * (self._image_bytes + output.bytes),
            normalises=self._image.takes_pixels,
        )

    def peak(self) -> float | None:
        """See `Session.peak`. By clock and cube units, of all devices together; None for a chip not in `chips`."""
        chip = find_chip(self._runtime.soc_name)
        return None if chip is None else chip.peak(self._precision) * max(1, len(self.devices()))

    @property
    def parallel_runs(self) -> int:
        """See `Session.parallel_runs`: two for every load of the model on a device in the rotation."""
        return max(1, self._balancer.places)

    def devices(self) -> tuple[DeviceStatus, ...]:
        """See `Session.devices`."""
        try:
            with self._in_use():
                return tuple(_status(member) for member in self._balancer.members)
        except BackendUnavailableError:
            return ()

    def profile(self, x: npt.NDArray[Any], runs: int = 10) -> list[LayerTiming]:
        """See `Session.profile`. From the device's own counters, through aclprof and msprof; on one device.

        Raises:
            InputError: also when the batch is none that the model runs in one piece.
            BackendUnavailableError: CANN's profiling library or msprof is missing.
        """
        if runs < 1:
            raise InputError(f"profile needs at least one run, not {runs}.")
        self._image.check(x)
        if len(x) not in self._gears.seconds:
            gears = ", ".join(str(gear) for gear in self._gears.seconds)
            raise InputError(f"profile needs a batch that the model runs in one piece: {gears}, not {len(x)}.")
        check_tools(self._runtime.library)
        device = next((status.index for status in self.devices() if status.healthy), 0)

        def run() -> None:
            session = self._again(device)
            with session:
                for _ in range(runs):
                    session._run_chunk(x, Chunk(0, len(x), len(x)), np.empty((len(x), *self._output.shape), np.float32))

        with tempfile.TemporaryDirectory(prefix="tessera-profile-") as folder:
            return profile_layers(
                self._runtime.library,
                Path(folder),
                run,
                device=device,
                batch=len(x),
                gears=self._order,
                soc=self._runtime.soc_name,
                precision=self._precision,
                costs=self._costs,
            )

    def _again(self, device: int) -> AscendSession:
        """The same model loaded once more, on one device."""
        return AscendSession(
            self._path,
            normalisation=self._normalisation,
            runtime=self._runtime,
            devices=[device],
            timeout_ms=self._timeout_ms,
        )

    def close(self) -> None:
        """See `Session.close`. Waits for batches in flight."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: self._active == 0)
        self._workers.shutdown()
        self._balancer.close()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keeps the session from being closed inside.

        Raises:
            BackendUnavailableError: it is closed.
        """
        with self._idle:
            if self._closed:
                raise unavailable(str(self._path))
            self._active += 1
        try:
            yield
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

    def _open(self, index: int) -> Replica:
        return Replica(self._runtime, index, self._path, self._instances)

    def _run_chunk(self, x: npt.NDArray[Any], chunk: Chunk, output: npt.NDArray[np.float32]) -> Stages:
        """Run a chunk into its rows of `output`; devices that fail meanwhile leave the rotation, each at most once."""
        balancer = self._balancer
        rows = slice(chunk.start, chunk.start + chunk.count)
        for _ in balancer.members:
            with balancer.slot() as (member, slot):
                try:
                    output[rows], stages = slot.run(x[rows], chunk.gear, self._image.encode, self._timeout_ms)
                except AclFaultError as error:
                    balancer.fail(member, error)
                    failure = DeviceError(f"Ascend device {member.index}: {error}")
                    failure.__cause__ = error
                except AclError as error:
                    raise DeviceError(f"Ascend device {member.index}: {error}") from error
                else:
                    return stages
            if not balancer.has_healthy():
                break
        raise failure

    def _measure(self, replica: Replica, image: OfflineTensor) -> GearTable:
        """Time every gear: the best of three runs, or of as many as fit into 50 ms."""
        seconds = {}
        for gear in replica.description.gears:
            images = np.zeros((gear, *image.shape), image.dtype)
            times: list[float] = []
            while len(times) < _MEASURE_RUNS and sum(times) < _MEASURE_SECONDS:
                started = time.perf_counter()
                replica.slots[0].run(images, gear, self._image.encode, self._timeout_ms)
                times.append(time.perf_counter() - started)
            seconds[gear] = min(times)
        return GearTable(seconds)


def _layer_costs(graph: Path | None) -> dict[str, LayerCost]:
    """Costs of the ONNX graph's layers by name; none where there is no graph, or none that we read."""
    if graph is None:
        return {}
    try:
        return layer_costs(read_model(graph))
    except ModelError:
        return {}


def _status(member: Member) -> DeviceStatus:
    replica = member.replica
    memory = replica.device.memory() if replica is not None else None
    return DeviceStatus(
        index=member.index,
        healthy=member.healthy,
        failures=member.failures,
        last_error=member.last_error,
        memory_free_bytes=memory[0] if memory else None,
        memory_total_bytes=memory[1] if memory else None,
        utilisation=replica.device.utilisation() if replica is not None else {},
    )
