"""One exposition from the metrics of several processes, some of which have ended.

prometheus_client's own multi-process mode writes every increment into files that outlive their processes. Here each
process hands over its registry as JSON when asked, and one process keeps the books.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

_CUMULATIVE = ("counter", "histogram", "summary")
# Where values of several processes are not added up.
_RULES: dict[str, Callable[[float, float], float]] = {
    "process_start_time_seconds": min,
    "process_max_fds": min,
    "tessera_build_info": max,
    "tessera_variant_info": max,
    "tessera_last_inference_timestamp_seconds": max,
}


class _Sample(NamedTuple):
    name: str
    labels: tuple[tuple[str, str], ...]


class _Family(NamedTuple):
    kind: str
    text: str
    samples: dict[_Sample, float]


_Families = dict[str, _Family]


def registry_to_json(registry: CollectorRegistry) -> bytes:
    """Everything that a registry holds now, for `Ledger.update`."""
    families = [
        [family.name, family.type, family.documentation, [[s.name, s.labels, s.value] for s in family.samples]]
        for family in registry.collect()
    ]
    return json.dumps(families).encode()


class Ledger:
    """The metrics of all processes.

    Counters and histograms of a process that has ended stay in the sums, as it last reported them: what has once been
    shown never goes backwards. Its gauges go with it.
    """

    def __init__(self) -> None:
        self._living: dict[str, _Families] = {}
        self._retired: _Families = {}

    def update(self, process: str, data: bytes) -> None:
        """Take what `registry_to_json` gave in a process, which replaces what it reported before."""
        self._living[process] = {
            name: _Family(
                kind,
                text,
                {
                    _Sample(sample, tuple(sorted(labels.items()))): value
                    for sample, labels, value in samples
                    if labels or kind != "info"  # a process that has nothing to say yet
                },
            )
            for name, kind, text, samples in json.loads(data)
        }

    def retire(self, process: str) -> None:
        """Note that a process has ended."""
        last = self._living.pop(process, {})
        _merge(self._retired, {name: family for name, family in last.items() if family.kind in _CUMULATIVE})

    def render(self, accept: str) -> tuple[bytes, str]:
        """Encode the sums for a scraper that accepts `accept`; returns the body and its Content-Type."""
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Sums(self._sums()))
        return encode(registry), content_type

    def _sums(self) -> _Families:
        sums: _Families = {}
        for families in (*self._living.values(), self._retired):
            _merge(sums, families)
        return sums


class _Sums(Collector):
    def __init__(self, families: _Families) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for name, (kind, text, samples) in self._families.items():
            metric = Metric(name, text, kind)
            for sample, value in _in_order(samples):
                metric.add_sample(sample.name, dict(sample.labels), value)
            yield metric


def _merge(sums: _Families, families: _Families) -> None:
    for name, family in families.items():
        into = sums.setdefault(name, _Family(family.kind, family.text, {})).samples
        for sample, value in family.samples.items():
            rule = min if sample.name.endswith("_created") else _RULES.get(sample.name)
            if sample not in into:
                into[sample] = value
            else:
                into[sample] = rule(into[sample], value) if rule is not None else into[sample] + value


def _in_order(samples: dict[_Sample, float]) -> Iterable[tuple[_Sample, float]]:
    """Samples of one set of labels side by side, as the text formats want it, `_created` last."""

    def key(entry: tuple[_Sample, float]) -> tuple[bool, list[tuple[str, str]]]:
        sample, _ = entry
        return sample.name.endswith("_created"), [label for label in sample.labels if label[0] != "le"]

    return sorted(samples.items(), key=key)
