"""One loaded model with two batches in flight: the next one is copied while the current one executes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tessera.engine.backends.ascend.device import Device
from tessera.engine.backends.ascend.errors import AclFaultError
from tessera.engine.backends.ascend.library import Library
from tessera.engine.backends.ascend.memory import Bytes, DeviceBuffer, StagedBuffer
from tessera.engine.backends.ascend.model import OfflineModel

SLOTS = 2

Encode = Callable[[npt.NDArray[Any], Bytes], int]


class Stages(NamedTuple):
    """Seconds that a batch took: to be written for the device (host), copied in (h2d), executed, copied out (d2h)."""

    host: float
    h2d: float
    execution: float
    d2h: float


class Dataset:
    """A list of device buffers as AscendCL takes it; owns neither of them."""

    def __init__(self, library: Library, buffers: Sequence[DeviceBuffer]) -> None:
        with ExitStack() as made:
            self.handle = library.pointer("aclmdlCreateDataset")
            made.callback(library.release, "aclmdlDestroyDataset", self.handle)
            for buffer in buffers:
                entry = library.pointer("aclCreateDataBuffer", buffer.address, buffer.size)
                made.callback(library.release, "aclDestroyDataBuffer", entry)
                library.call("aclmdlAddDatasetBuffer", self.handle, entry)
            self._made = made.pop_all()

    def close(self) -> None:
        """Destroy the list."""
        self._made.close()


class Slot:
    """Buffers, datasets and a copy stream for one batch in flight. Made and used inside `device.active()`.

    Args:
        instance: whose model it feeds.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        device, description = instance.device, instance.model.description
        self.copies = device.create_stream()
        with ExitStack() as made:
            made.callback(device.destroy_stream, self.copies)
            self.image = StagedBuffer(device, description.image.bytes)
            made.callback(self.image.close)
            self.output = StagedBuffer(device, description.output.bytes)
            made.callback(self.output.close)
            buffers = [self.image.device]
            if description.shape_input is not None:
                shape = DeviceBuffer(device, description.shape_bytes)
                made.callback(shape.close)
                buffers.insert(description.shape_input, shape)
            self.inputs = Dataset(device.library, buffers)
            made.callback(self.inputs.close)
            self.outputs = Dataset(device.library, [self.output.device])
            made.callback(self.outputs.close)
            self._made = made.pop_all()

    def run(
        self, images: npt.NDArray[Any], gear: int, encode: Encode, timeout_ms: int
    ) -> tuple[npt.NDArray[np.float32], Stages]:
        """Run up to `gear` images; rows that are missing stay what they were, their results are not looked at.

        Args:
            images: [n, ...].
            gear: a batch size of the model, at least n.
            encode: writes images as the model takes them; returns how many bytes.
            timeout_ms: longest wait for each of copying in, executing and copying out.

        Returns:
            float32 [n, ...], and what it took; waiting for another batch of the instance counts as nothing.

        Raises:
            AclError: AscendCL failed.
        """
        device, output = self.instance.device, self.instance.model.description.output
        with device.active():
            started = time.perf_counter()
            encoded = encode(images, self.image.host)
            ready = time.perf_counter()
            self.image.upload(encoded, self.copies)
            device.synchronise(self.copies, timeout_ms)
            uploaded = time.perf_counter()
            execution = self.instance.execute(self, gear, timeout_ms)
            executed = time.perf_counter()
            count = len(images) * output.image_bytes
            self.output.download(count, self.copies)
            device.synchronise(self.copies, timeout_ms)
            downloaded = time.perf_counter()
            rows = self.output.host[:count].view(output.dtype).reshape(len(images), *output.shape)
            stages = Stages(ready - started, uploaded - ready, execution, downloaded - executed)
            return rows.astype(np.float32), stages

    def close(self) -> None:
        """Free everything."""
        self._made.close()


class Instance:
    """A loaded model, the stream that it executes on, and its slots. Made and closed inside `device.active()`.

    One model must not run twice at once, and its gear is a property of the model: so setting the gear and executing are
    one step under a lock. Copies need no lock: each slot has buffers of its own, and a stream of its own.

    Args:
        device: where it runs.
        path: the .om file.
        weights: see `OfflineModel`.
    """

    def __init__(self, device: Device, path: Path, weights: DeviceBuffer | None = None) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._fault: AclFaultError | None = None
        with ExitStack() as made:
            self.executions = device.create_stream()
            made.callback(device.destroy_stream, self.executions)
            self.model = OfflineModel(device, path, weights)
            made.callback(self.model.close)
            self.slots = []
            for _ in range(SLOTS):
                self.slots.append(Slot(self))
                made.callback(self.slots[-1].close)
            self._made = made.pop_all()

    def execute(self, slot: Slot, gear: int, timeout_ms: int) -> float:
        """Run the model on a slot's buffers and wait for it; returns the seconds that this took once it was its turn.

        Raises:
            AclFaultError: the device failed, now or in an earlier execution of this instance. What did not end in time
                may still run, so nothing else may.
        """
        with self._lock:
            if self._fault is not None:
                raise self._fault.again()
            started = time.perf_counter()
            try:
                self._set_gear(slot, gear)
                datasets = (slot.inputs.handle, slot.outputs.handle)
                self.device.library.call("aclmdlExecuteAsync", self.model.id, *datasets, self.executions.handle)
                self.device.synchronise(self.executions, timeout_ms)
            except AclFaultError as error:
                self._fault = error
                raise
            return time.perf_counter() - started

    def _set_gear(self, slot: Slot, gear: int) -> None:
        index = self.model.description.shape_input
        if index is not None:
            arguments = (self.model.id, slot.inputs.handle, index, gear)
            self.device.library.call("aclmdlSetDynamicBatchSize", *arguments)

    def drain(self, timeout_ms: int) -> bool:
        """Wait until nothing uses the instance's memory; False when that does not happen."""
        streams = [self.executions, *(slot.copies for slot in self.slots)]
        drained = [self.device.drain(stream, timeout_ms) for stream in streams]
        return all(drained)

    def close(self) -> None:
        """Free everything; drained before."""
        self._made.close()
