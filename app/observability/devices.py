"""Accelerators at every scrape: health, memory, utilisation. Without any, as on the CPU, there is no series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from tessera.engine import DeviceStatus  # processes that only speak HTTP load no engine

ReadDevices = Callable[[], Mapping[str, Sequence["DeviceStatus"]]]


class DeviceCollector(Collector):
    """Asks the sessions how their devices are doing.

    Memory and utilisation belong to a device, whichever variants run on it; health and failures to a variant on it.

    Args:
        read: Returns the devices of each variant's session.
    """

    def __init__(self, read: ReadDevices) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Names without asking the devices."""
        return _families()

    def collect(self) -> Iterable[Metric]:
        """Ask the devices now."""
        healthy, failures, memory, utilisation = families = _families()
        statuses = self._read()
        for variant, devices in statuses.items():
            for status in devices:
                healthy.add_metric([variant, str(status.index)], float(status.healthy))
                failures.add_metric([variant, str(status.index)], status.failures)
        for index, status in _by_device(statuses).items():
            if status.memory_total_bytes is not None and status.memory_free_bytes is not None:
                memory.add_metric([str(index), "free"], status.memory_free_bytes)
                memory.add_metric([str(index), "used"], status.memory_total_bytes - status.memory_free_bytes)
            for unit, share in status.utilisation.items():
                utilisation.add_metric([str(index), unit], share)
        return families


def _families() -> tuple[GaugeMetricFamily, CounterMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            "tessera_device_healthy",
            "1 while the accelerator gets batches of the variant, 0 while it is out of the rotation.",
            labels=("variant", "device"),
        ),
        CounterMetricFamily(
            "tessera_device_failures", "Times that the accelerator left the rotation.", labels=("variant", "device")
        ),
        GaugeMetricFamily("tessera_device_memory_bytes", "Memory of the accelerator.", labels=("device", "state")),
        GaugeMetricFamily(
            "tessera_device_utilisation_ratio",
            "Share of time that a unit of the accelerator was busy, as its driver says.",
            labels=("device", "unit"),
        ),
    )


def _by_device(statuses: Mapping[str, Sequence[DeviceStatus]]) -> dict[int, DeviceStatus]:
    """One status for each device, from a variant that can see its memory if any can."""
    found: dict[int, DeviceStatus] = {}
    for devices in statuses.values():
        for status in devices:
            if status.index not in found or found[status.index].memory_total_bytes is None:
                found[status.index] = status
    return found
