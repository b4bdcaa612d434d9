"""The application of deploy/ray on a real cluster: answers, refusals, metrics, deaths, redeployment, scaling."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import imagefiles
from tests.ray.cluster import Cluster
from tests.waiting import NEVER, until

pytest.importorskip("ray", reason="`make ray` installs it, in an environment of its own")

ROOM = 8  # images in a replica's queue, more than there are clients below
CLIENTS = 4
TWO = {"min_replicas": 2, "max_replicas": 2}


@pytest.fixture(scope="module")
def settings(small_model: Path) -> dict[str, object]:
    return {
        "backend": "cpu",
        "model_path": str(small_model),
        "page": False,
        "max_queue_images": ROOM,
        "max_images_per_request": ROOM,
    }


@pytest.fixture(scope="module")
def pair(cluster: Cluster, settings: dict[str, object]) -> Cluster:
    """The cluster with two replicas, which each test leaves as it found them."""
    cluster.deploy(autoscaling=TWO, **settings)
    cluster.wait_for_replicas(2)
    return cluster


@contextmanager
def load(cluster: Cluster) -> Iterator[Counter[str]]:
    """Clients that ask without pause; what became of each request."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        with cluster.client() as client:
            for photo in cycle([imagefiles.jpeg(), imagefiles.png()]):
                if over.is_set():
                    return
                try:
                    answer = client.post("/v1/classify", content=photo)
                    seen[answer.json()["model"] if answer.is_success else f"{answer.status_code} {answer.text}"] += 1
                except httpx.HTTPError as error:
                    seen[repr(error)] += 1

    with ThreadPoolExecutor() as threads:
        for _ in range(CLIENTS):
            threads.submit(ask)
        try:
            yield seen
        finally:
            over.set()


def count(metrics: str, name: str) -> float:
    """A metric over all of its labels."""
    families = text_string_to_metric_families(metrics)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@pytest.mark.parametrize("variant", ["baseline", "optimised"])
def test_the_variant_is_asked_for_and_told_as_without_ray(pair: Cluster, variant: str) -> None:
    headers = {"X-Model-Variant": variant, "X-Request-ID": "of-the-client"}
    with pair.client() as client:
        answer = client.post("/v1/classify", content=imagefiles.jpeg(), headers=headers)
    assert (answer.status_code, answer.json()["variant"]) == (200, variant)
    assert answer.headers.get_list("X-Model-Variant") == [variant]
    assert answer.headers.get_list("X-Request-ID") == ["of-the-client"]


def test_each_replica_is_scraped_for_itself(pair: Cluster) -> None:
    with load(pair):
        until(lambda: all(count(text, "tessera_images_total") > 0 for text in pair.metrics()), pause=0.5)
    before = pair.metrics()
    assert len(before) == 2
    with pair.client() as client:
        assert client.post("/v1/classify", content=imagefiles.jpeg()).is_success
    after = pair.metrics()
    counts = [[count(text, "tessera_images_total") for text in texts] for texts in (before, after)]
    more = [now - then for then, now in zip(*counts, strict=True)]
    assert sorted(more) == [0, 1]


def test_when_both_are_full_the_refusal_is_the_services_own(pair: Cluster) -> None:
    # Each fills a queue, for as long as its photos take to decode.
    form = [("file", (f"{number}.jpg", imagefiles.jpeg(4000, 3000), "image/jpeg")) for number in range(ROOM)]
    seen: list[httpx.Response] = []

    def ask() -> None:
        with pair.client() as client:
            while not any(answer.status_code == 503 for answer in seen):
                seen.append(client.post("/v1/classify", files=form))

    with ThreadPoolExecutor() as threads:
        for asking in [threads.submit(ask) for _ in range(CLIENTS)]:
            asking.result()
    assert {answer.status_code for answer in seen} == {200, 503}
    for refused in seen:
        if refused.status_code == 503:
            assert refused.json().keys() == {"error", "code", "request_id"}
            assert refused.json()["code"] == "queue_full"
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.headers.get_list("X-Request-ID") == [refused.json()["request_id"]]


def test_a_replica_that_is_killed_costs_its_own_answers_alone_and_is_replaced(pair: Cluster) -> None:
    lost, _ = pair.replicas()
    with load(pair) as seen:
        until(lambda: seen.total() > 20)
        os.kill(lost.pid, signal.SIGKILL)
        pair.wait_for_replicas(2, without=[lost])
        served = seen["small"]
        until(lambda: seen["small"] > served + 20)
    failed = [outcome for outcome in seen if outcome != "small"]
    assert all(outcome.startswith("500 ") for outcome in failed), seen
    assert sum(seen[outcome] for outcome in failed) <= CLIENTS
    assert len(pair.metrics()) == 2


def test_a_redeployment_under_load_loses_no_answer(pair: Cluster, settings: dict[str, object]) -> None:
    before = pair.replicas()
    with load(pair) as seen:
        until(lambda: seen["small"] > 20)
        pair.deploy(autoscaling=TWO, **settings, model_name="renamed")
        pair.wait_for_replicas(2, without=before)
        until(lambda: seen["renamed"] > 20)
    assert seen.keys() == {"small", "renamed"}
    for replica in before:
        log = replica.log.read_text()
        assert "Graceful shutdown complete" in log
        assert "raised an exception" not in log


def test_demand_brings_another_replica(cluster: Cluster, settings: dict[str, object]) -> None:
    def scaled(target: float) -> dict[str, object]:
        policy = {"policy_function": "tessera_ray:Demand", "policy_kwargs": {"target": target}}
        return {"min_replicas": 1, "max_replicas": 2, "upscale_delay_s": 1, "downscale_delay_s": 0, "policy": policy}

    cluster.deploy(autoscaling=scaled(1e6), **settings)
    cluster.wait_for_replicas(1)
    with load(cluster) as seen:
        until(lambda: seen["small"] > 100)
        assert len(cluster.replicas()) == 1
        cluster.deploy(autoscaling=scaled(0.001), **settings)  # so little that a small model's load is past it
        cluster.wait_for_replicas(2)
    assert seen.keys() == {"small"}


def test_clients_are_known_by_their_addresses(cluster: Cluster, settings: dict[str, object]) -> None:
    limits = {"rate_limit": 1e-6, "rate_burst": 1, "trusted_proxies": "127.0.0.0/8"}
    before = cluster.replicas()
    cluster.deploy(autoscaling={"min_replicas": 1, "max_replicas": 1}, **settings, **limits)
    cluster.wait_for_replicas(1, without=before)
    with cluster.client() as client:
        statuses = [
            client.get("/v1/models", headers={"X-Forwarded-For": address}).status_code
            for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        ]
    assert statuses == [200, 200, 429]


def test_past_its_own_limits_ray_says_when_to_come_again_too(cluster: Cluster, settings: dict[str, object]) -> None:
    before = cluster.replicas()
    few = {**settings, "max_queue_images": 1, "max_images_per_request": 1, "max_batch": 1}
    cluster.deploy(autoscaling={"min_replicas": 1, "max_replicas": 1}, **few)
    cluster.wait_for_replicas(1, without=before)
    places = 2 * (1 + 1)  # in the replica, and as many at the proxy
    with ExitStack() as opened:
        uploads = [opened.enter_context(closing(cluster.upload_nothing())) for _ in range(2 * places + 1)]
        (answered, *_), _, _ = select.select([upload.sock for upload in uploads], [], [], NEVER)
        (refused,) = [upload.getresponse() for upload in uploads if upload.sock is answered]
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("frontends", 2, "frontends: "), ("model_path", "/nowhere", "The model could not be loaded: ")],
)
def test_what_cannot_be_served_is_told(
    cluster: Cluster, settings: dict[str, object], setting: str, value: object, told: str
) -> None:
    cluster.deploy(autoscaling=TWO, **{**settings, setting: value})
    until(lambda: told in cluster.message(), pause=0.5)
