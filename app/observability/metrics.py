"""Every metric of the service, in one struct. `docs/metrics.md` documents each; a test fails when they differ."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, Summary
from prometheus_client.exposition import choose_encoder

from tessera.app.observability.deferral import Deferral, deferred
from tessera.app.observability.devices import DeviceCollector, ReadDevices
from tessera.app.observability.utilisation import BusyRatio, ComputeUtilisation
from tessera.app.scheduling.lanes import variant_of
from tessera.app.scheduling.ticket import Outcome
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.app.version import service_version

_REQUEST_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DISTANCE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16)

STAGES = ("decode", "queue", "compute", "postprocess")
REQUEST_STAGES = ("queue", "input", "infer", "output")


class Metrics:
    """The metrics of one application; each has its own registry, so that several can live in one process.

    What is counted between an image's run and its answer is deferred. Each of prometheus_client's operations takes some
    10 us on caches that the engine has just emptied, and a lone request would wait for 20 of them. `deferral.settle` is
    called after each answer, and by every reading of the registry.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.deferral = Deferral()
        self.registry.register(self.deferral)
        self.request_duration = Histogram(
            "tessera_request_duration_seconds",
            "Time from the headers of a classify or infer request to its answer.",
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
        self.demand_ratio = Gauge(
            "tessera_demand_ratio",
            "Seconds of engine that the last minute's requests ask for, admitted or refused, over those there are.",
            registry=self.registry,
        )
        self.images = Counter(
            "tessera_images", "Images that the engine has classified.", ("variant",), registry=self.registry
        )
        self.rejections = Counter(
            "tessera_rejections",
            "Classify and infer requests turned away, any over the rate limit, and connections without a place.",
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
        self.routed = Counter(
            "tessera_routed_requests",
            "Requests answered with success, by the variant that answered and what chose it.",
            ("variant", "chosen_by"),
            registry=self.registry,
        )
        self.split = Gauge(
            "tessera_split_ratio",
            "Share of the requests that name no variant which this variant gets now.",
            ("variant",),
            registry=self.registry,
        )
        self.shadow_images = Counter(
            "tessera_shadow_images",
            "Images chosen for the shadow, by what became of them.",
            ("outcome",),
            registry=self.registry,
        )
        self.shadow_agreement = Gauge(
            "tessera_shadow_agreement_ratio",
            "Share of the compared images that got the same top label from both variants.",
            registry=self.registry,
        )
        self.shadow_distance = Histogram(
            "tessera_shadow_logit_distance_ratio",
            "Distance of the optimised logits from the baseline's over the size of the baseline's, per compared image.",
            buckets=_DISTANCE_BUCKETS,
            registry=self.registry,
        )
        self.shadow_speed_up = Gauge(
            "tessera_shadow_speedup_ratio",
            "Baseline's compute time over optimised's for the same image at the same batch size, geometric mean.",
            registry=self.registry,
        )
        self.guard_tripped = Gauge(
            "tessera_guard_tripped",
            "1 while the accuracy guard keeps traffic on the baseline, else 0.",
            registry=self.registry,
        )
        self.guard_events = Counter(
            "tessera_guard_events", "Changes of the accuracy guard's state.", ("event",), registry=self.registry
        )
        self.restarts = Counter(
            "tessera_process_restarts",
            "Processes that ended unasked and were replaced.",
            ("process",),
            registry=self.registry,
        )
        self.request_stage = Summary(
            "tessera_request_stage_seconds",
            "Time per request in a stage: queue, input, infer, output.",
            ("variant", "stage"),
            registry=self.registry,
        )
        self.batch_duration = Summary(
            "tessera_batch_duration_seconds",
            "Run time of a batch, by its size.",
            ("variant", "images"),
            registry=self.registry,
        )
        self.last_inference = Gauge(
            "tessera_last_inference_timestamp_seconds",
            "When the variant last ran a request, since 1970.",
            ("variant",),
            registry=self.registry,
        )
        self.variants = Info("tessera_variant", "What runs a variant.", ("variant",), registry=self.registry)
        self.build = Info("tessera_build", "Version and machine of this process.", registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._busy = BusyRatio()
        self.engine_busy_ratio.set_function(self._busy.value)
        self._utilisation: dict[str, ComputeUtilisation] = {}
        self._work: dict[str, float] = {}  # of an image of a further size, by lane, over that of the usual one
        for stage in STAGES:
            self.stage_duration.labels(stage)
        for process in ("engine", "frontend"):
            self.restarts.labels(process)

    def describe_model(self, model: ServedModel) -> None:
        """Set the labels of `tessera_build_info`, and make every variant's series appear at once."""
        isa = next((variant.isa for variant in model.variants.values() if variant.backend == "cpu"), "")
        self.build.info(
            {"version": service_version(), "model": model.name, "isa": isa, "python": platform.python_version()}
        )
        for variant in model.variants.values():
            self._add_variant(variant)

    def describe_variant(self, variant: ServedVariant) -> None:
        """Set the labels of `tessera_variant_info`."""
        described = {"backend": variant.backend, "precision": variant.precision, "isa": variant.isa}
        self.variants.labels(variant.name).info(described)

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Read the queue depth from `depth` at every scrape."""
        self.queue_depth.set_function(depth)

    def watch_demand(self, ratio: Callable[[], float]) -> None:
        """Read the demand from `ratio` at every scrape."""
        self.demand_ratio.set_function(ratio)

    def watch_devices(self, read: ReadDevices) -> None:
        """Ask the accelerators of each variant how they are doing at every scrape."""
        self.registry.register(DeviceCollector(read))

    @deferred
    def batch_finished(self, variant: str, images: int, seconds: float, share: float) -> None:
        """Count a batch of `images` that ran for `seconds`; `share` is its part of the engine's time."""
        lane, variant = variant, variant_of(variant)
        self.batch_size.labels(variant).observe(images)
        self.images.labels(variant).inc(images)
        self.engine_busy.inc(share)
        self.stage_duration.labels("compute").observe(seconds)
        self.batch_duration.labels(variant, images).observe(seconds)
        self._busy.observe(share)
        if variant in self._utilisation:
            self._utilisation[variant].observe(images * self._work.get(lane, 1.0), share)

    @deferred
    def stage(self, stage: str, seconds: float) -> None:
        """Count one passage of a stage, one of `STAGES`."""
        self.stage_duration.labels(stage).observe(seconds)

    @deferred
    def request_finished(self, *, variant: str, outcome: str, seconds: float) -> None:
        """Count a classify or infer request; `outcome` is `ok` or an error code, `variant` is "none" before routing."""
        self.request_duration.labels(variant, outcome).observe(seconds)

    @deferred
    def answer_built(self, variant: str, seconds: float) -> None:
        """Count the building of a successful answer."""
        self.stage_duration.labels("postprocess").observe(seconds)
        self.request_stage.labels(variant, "output").observe(seconds)

    @deferred
    def request_ran(self, variant: str, outcomes: Sequence[Outcome], input_seconds: float) -> None:
        """Count the images of one request.

        Args:
            variant: Who ran them.
            outcomes: One per image.
            input_seconds: Decoding, or copying a tensor.
        """
        for outcome in outcomes:
            self.stage_duration.labels("queue").observe(outcome.queue_seconds)
        waited = min(outcome.queue_seconds for outcome in outcomes)
        ended = max(outcome.queue_seconds + outcome.compute_seconds for outcome in outcomes)
        self.request_stage.labels(variant, "queue").observe(waited)
        self.request_stage.labels(variant, "input").observe(input_seconds)
        self.request_stage.labels(variant, "infer").observe(ended - waited)
        self.last_inference.labels(variant).set_to_current_time()

    def rejected(self, reason: str) -> None:
        """Count a request that was turned away; `reason` is an error code."""
        self.rejections.labels(reason).inc()

    @deferred
    def answered(self, variant: str, reason: str) -> None:
        """Count an answered request; `reason` is one of `router.REASONS`."""
        self.routed.labels(variant, reason).inc()

    def split_changed(self, shares: dict[str, float]) -> None:
        """Set the share of each variant."""
        for variant, share in shares.items():
            self.split.labels(variant).set(share)

    def shadow_ended(self, outcome: str, images: int) -> None:
        """Count shadow images; `outcome` is one of `shadow.OUTCOMES`."""
        self.shadow_images.labels(outcome).inc(images)

    def shadow_compared(self, *, distance: float, agreement: float, speed_up: float | None) -> None:
        """Count a comparison, and set what all of them say."""
        self.shadow_distance.observe(distance)
        self.shadow_agreement.set(agreement)
        if speed_up is not None:
            self.shadow_speed_up.set(speed_up)

    def guard_changed(self, *, tripped: bool, event: str | None) -> None:
        """Set the guard's state and count the event that led to it."""
        self.guard_tripped.set(tripped)
        if event is not None:
            self.guard_events.labels(event).inc()

    def restarted(self, process: str) -> None:
        """Count a process that ended unasked; `process` is `engine` or `frontend`."""
        self.restarts.labels(process).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Encode every metric for a scraper that accepts `accept`; returns the body and its Content-Type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _add_variant(self, variant: ServedVariant) -> None:
        self.describe_variant(variant)
        self.batch_size.labels(variant.name)
        self.images.labels(variant.name)
        for stage in REQUEST_STAGES:
            self.request_stage.labels(variant.name, stage)
        if variant.peak:  # where it is not known there is no utilisation
            utilisation = ComputeUtilisation(variant.macs, variant.peak)
            self._utilisation[variant.name] = utilisation
            self._work |= {lane: further.macs / variant.macs for lane, further in variant.further.items()}
            self.compute_utilisation.labels(variant.name).set_function(utilisation.value)
