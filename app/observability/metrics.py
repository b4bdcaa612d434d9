"""Every metric of the service, in one struct. `docs/metrics.md` documents each; a test fails when they differ."""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from app.observability.devices import DeviceCollector, ReadDevices
from app.observability.utilisation import BusyRatio, ComputeUtilisation

_REQUEST_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16)

STAGES = ("decode", "queue", "compute", "postprocess")


class Metrics:
    """The metrics of one application; each has its own registry, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.request_duration = Histogram(
            "tessera_request_duration_seconds",
            "Time from the first byte of a classify request's headers to its answer.",
            ("variant", "outcome"),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.stage_duration = Histogram(
            "tessera_stage_duration_seconds",
            "Time per stage: decode and queue per image, compute per batch, postprocess per request.",
            ("stage",),
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "tessera_batch_size", "Images per batch.", ("variant",), buckets=_BATCH_BUCKETS, registry=self.registry
        )
        self.queue_depth = Gauge(
            "tessera_queue_depth_images", "Images admitted and not yet in a batch.", registry=self.registry
        )
        self.images = Counter(
            "tessera_images", "Images that the engine has classified.", ("variant",), registry=self.registry
        )
        self.rejections = Counter(
            "tessera_rejections",
            "Classify requests turned away (4xx or 503), by error code.",
            ("reason",),
            registry=self.registry,
        )
        self.engine_busy = Counter(
            "tessera_engine_busy_seconds", "Time that the engine has spent running batches.", registry=self.registry
        )
        self.engine_busy_ratio = Gauge(
            "tessera_engine_busy_ratio",
            "Share of the last 60 seconds that the engine spent running batches.",
            registry=self.registry,
        )
        self.compute_utilisation = Gauge(
            "tessera_compute_utilisation_ratio",
            "Multiply-accumulates per second over the measured peak of the variant's precision, last 64 batches.",
            ("variant",),
            registry=self.registry,
        )
        self.build = Info("tessera_build", "Version and machine of this process.", registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._busy = BusyRatio()
        self.engine_busy_ratio.set_function(self._busy.value)
        self._utilisation: dict[str, ComputeUtilisation] = {}
        for stage in STAGES:
            self.stage_duration.labels(stage)

    def describe_build(self, *, version: str, model: str, isa: str) -> None:
        """Set the labels of `tessera_build_info`."""
        self.build.info({"version": version, "model": model, "isa": isa, "python": platform.python_version()})

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Read the queue depth from `depth` at every scrape."""
        self.queue_depth.set_function(depth)

    def add_variant(self, variant: str, *, macs: int, peak: float | None) -> None:
        """Make the series of a variant appear before its first batch.

        Args:
            variant: Its name.
            macs: Multiply-accumulates per image.
            peak: Peak multiply-accumulates per second, or None where it is not known: then there is no utilisation.
        """
        self.batch_size.labels(variant)
        self.images.labels(variant)
        if peak:
            utilisation = ComputeUtilisation(macs, peak)
            self._utilisation[variant] = utilisation
            self.compute_utilisation.labels(variant).set_function(utilisation.value)

    def watch_devices(self, read: ReadDevices) -> None:
        """Ask the accelerators of each variant how they are doing at every scrape."""
        self.registry.register(DeviceCollector(read))

    def batch_finished(self, variant: str, images: int, seconds: float) -> None:
        """Count a batch of `images` that ran for `seconds`."""
        self.batch_size.labels(variant).observe(images)
        self.images.labels(variant).inc(images)
        self.engine_busy.inc(seconds)
        self.stage_duration.labels("compute").observe(seconds)
        self._busy.observe(seconds)
        if variant in self._utilisation:
            self._utilisation[variant].observe(images, seconds)

    def stage(self, stage: str, seconds: float) -> None:
        """Count one passage of a stage, one of `STAGES`."""
        self.stage_duration.labels(stage).observe(seconds)

    def request_finished(self, *, variant: str, outcome: str, seconds: float) -> None:
        """Count an answered classify request; `outcome` is `ok` or an error code."""
        self.request_duration.labels(variant, outcome).observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a request that was turned away; `reason` is an error code."""
        self.rejections.labels(reason).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Encode every metric for a scraper that accepts `accept`; returns the body and its Content-Type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
