"""A model on one device, ready to run."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from tessera.engine.backends.ascend.device import Device
from tessera.engine.backends.ascend.errors import AclError
from tessera.engine.backends.ascend.instance import Instance, Slot
from tessera.engine.backends.ascend.memory import DeviceBuffer
from tessera.engine.backends.ascend.model import Description, query_size
from tessera.engine.backends.ascend.runtime import Runtime

logger = logging.getLogger(__name__)


class Replica:
    """A model on one device, loaded once, or several times with the same weights.

    Several loads execute at the same time, which keeps chips with several AI cores busy; they share one copy of the
    weights. A single load leaves all memory to CANN.

    Args:
        runtime: AscendCL.
        index: the device.
        path: the .om file.
        instances: how often to load it.

    Attributes:
        slots: places for batches in flight; each may be used by one thread at a time.

    Raises:
        AclError: the device cannot be opened, or CANN cannot load the file; nothing is left behind.
        ModelError: the model is no image classifier.
    """

    def __init__(self, runtime: Runtime, index: int, path: Path, instances: int = 1) -> None:
        with ExitStack() as made:
            self.device = Device(runtime, index)
            made.callback(self.device.close)
            with self.device.active():
                weights = self._shared_weights(path) if instances > 1 else None
                if weights is not None:
                    made.callback(weights.close)
                self._instances: list[Instance] = []
                for _ in range(instances):
                    self._instances.append(Instance(self.device, path, weights))
                    made.callback(self._instances[-1].close)
            self._made = made.pop_all()

    @property
    def description(self) -> Description:
        """What the model takes and gives."""
        return self._instances[0].model.description

    @property
    def slots(self) -> list[Slot]:
        """Slots of all loads, so ordered that neighbours belong to different ones."""
        return [slot for group in zip(*(instance.slots for instance in self._instances), strict=True) for slot in group]

    def close(self, timeout_ms: int) -> bool:
        """Wait for what still runs, then give everything back, in AscendCL's order.

        Returns:
            False when something does not end within `timeout_ms`: its memory cannot be freed, and the device cannot be
            used again by this process.
        """
        try:
            with self.device.active():
                drained = [instance.drain(timeout_ms) for instance in self._instances]
                if not all(drained):
                    logger.error("device %d does not end what it runs; its memory stays", self.device.index)
                    return False
        except AclError as error:
            logger.warning("device %d has no context any more: %s", self.device.index, error)
        self._made.close()
        return True

    def _shared_weights(self, path: Path) -> DeviceBuffer:
        _, weights = query_size(self.device.library, path)
        return DeviceBuffer(self.device, weights)
