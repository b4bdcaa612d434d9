"""The protocol's statistics, read out of the metrics of all processes: one set of books for both."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from tessera.app.oip.wire.description import Duration, VariantStatistics


def read_statistics(exposition: str) -> dict[str, VariantStatistics]:
    """What each variant has done since the start.

    Args:
        exposition: The metrics in the Prometheus text format.
    """
    found: defaultdict[str, VariantStatistics] = defaultdict(VariantStatistics)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            variant = sample.labels.get("variant")
            if variant is None:
                continue
            duration = _duration(found[variant], family.name, sample.labels)
            if duration is not None and sample.name.endswith("_count"):
                duration.count += int(sample.value)
            elif duration is not None and sample.name.endswith("_sum"):
                duration.ns += round(sample.value * 1e9)
            elif sample.name == "tessera_images_total":
                found[variant].inference_count = int(sample.value)
            elif sample.name == "tessera_last_inference_timestamp_seconds":
                found[variant].last_inference = round(sample.value * 1000)
    for statistics in found.values():
        statistics.execution_count = sum(duration.count for duration in statistics.batches.values())
    return dict(found)


def _duration(statistics: VariantStatistics, family: str, labels: dict[str, str]) -> Duration | None:
    """The duration that a sample belongs to."""
    if family == "tessera_request_duration_seconds":
        return statistics.success if labels["outcome"] == "ok" else statistics.fail
    if family == "tessera_request_stage_seconds":
        return {
            "queue": statistics.queue,
            "input": statistics.compute_input,
            "infer": statistics.compute_infer,
            "output": statistics.compute_output,
        }[labels["stage"]]
    if family == "tessera_batch_duration_seconds":
        return statistics.batches.setdefault(int(labels["images"]), Duration())
    return None
