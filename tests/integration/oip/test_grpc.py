"""The Open Inference Protocol over gRPC, with the clients that people use, against a real server."""

from __future__ import annotations

import asyncio
import queue
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from tessera.app.oip.grpc.schema import Schema
from tests import imagefiles
from tests.servers import ServerProcess
from tests.waiting import NEVER, until

MODEL = "resnet50-imagenette"
FILES = np.array([imagefiles.jpeg(), imagefiles.png(300, 400)], dtype=object)
TOKEN = "a-token-for-this-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LISTENING = re.compile(r"listening for gRPC address=\"?([\d.:]+)")


def listening_at(server: ServerProcess) -> str:
    (found,) = [match[1] for line in server.log if (match := LISTENING.search(line))]
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(grpc_port=0, admin=True, admin_token=TOKEN) as running:
        yield running
        # Who watches the health of a server that ends is told so, and does not hold up its end.
        with grpc.insecure_channel(listening_at(running)) as channel:
            watching = health(channel, "Watch")
            assert next(watching).status == 1
            assert running.stop() == 0, running.describe()
            with pytest.raises(grpc.RpcError):
                list(watching)


@pytest.fixture(scope="module")
def address(server: ServerProcess) -> str:
    return listening_at(server)


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as connected:
        yield connected


def tensor(values: np.ndarray, datatype: str = "BYTES") -> triton.InferInput:
    made = triton.InferInput("input", values.shape, datatype)
    made.set_data_from_numpy(values)
    return made


@pytest.mark.effect_of("grpc_port")
def test_answers_are_those_of_http(client: triton.InferenceServerClient, server: ServerProcess) -> None:
    with triton_http.InferenceServerClient(server.url.removeprefix("http://")) as http:
        sent = triton_http.InferInput("input", FILES.shape, "BYTES")
        sent.set_data_from_numpy(FILES)
        for version in ("1", "2"):
            expected = http.infer(MODEL, [sent], model_version=version).as_numpy("output")
            result = client.infer(MODEL, [tensor(FILES)], model_version=version, request_id="mine")
            np.testing.assert_allclose(result.as_numpy("output"), expected, rtol=1e-4, atol=1e-4)
            response = result.get_response()
            assert (response.id, response.model_name, response.model_version) == ("mine", MODEL, version)


def test_tensors_of_numbers_and_classification(client: triton.InferenceServerClient) -> None:
    generator = np.random.default_rng(1)
    for values, datatype in (
        (generator.integers(0, 256, (2, 224, 224, 3), np.uint8), "UINT8"),
        (generator.normal(size=(2, 3, 224, 224)).astype(np.float32), "FP32"),
    ):
        logits = client.infer(MODEL, [tensor(values, datatype)]).as_numpy("output")
        assert logits.shape == (2, 10)
        best = client.infer(
            MODEL, [tensor(values, datatype)], outputs=[triton.InferRequestedOutput("output", class_count=2)]
        ).as_numpy("output")
        assert [int(text.split(b":")[1]) for text in best[:, 0]] == list(logits.argmax(axis=1))


def test_the_variant_is_chosen_by_metadata_or_name(client: triton.InferenceServerClient) -> None:
    for model, header, variant in (
        (MODEL, "baseline", "baseline"),
        (f"{MODEL}-baseline", None, "baseline"),
        (MODEL, None, "optimised"),
    ):
        headers = None if header is None else {"x-model-variant": header}
        response = client.infer(model, [tensor(FILES)], headers=headers).get_response()
        assert response.parameters["variant"].string_param == variant


def test_contents_that_are_not_raw(address: str) -> None:
    """As clients write them that are made from the protocol's own file."""
    schema = Schema("inference.proto")
    call = schema.calls["ModelInfer"]
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            f"/{schema.service}/ModelInfer", call.request.SerializeToString, call.response.FromString
        )
        request = call.request(model_name=MODEL)
        entry = request.inputs.add(name="input", datatype="BYTES", shape=[2])
        entry.contents.bytes_contents.extend(FILES)
        by_bytes = np.frombuffer(infer(request).raw_output_contents[0], "<f4")
        assert by_bytes.shape == (20,)
        entry.datatype = "UINT8"
        entry.shape[:] = [1, 224, 224, 3]
        entry.contents.Clear()
        entry.contents.uint_contents.extend([7] * 150528)
        assert len(infer(request).raw_output_contents[0]) == 40
        entry.contents.uint_contents[0] = 256
        with pytest.raises(grpc.RpcError) as caught:
            infer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "0 to 255" in caught.value.details()
        assert {key for key, _ in caught.value.trailing_metadata()} >= {"x-request-id", "error-code"}


def test_the_client_learns_everything_about_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready(MODEL, "7")
    assert client.get_server_metadata().name == "tessera"
    metadata = client.get_model_metadata(MODEL)
    assert list(metadata.versions) == ["1", "2"]
    assert list(metadata.inputs[0].shape) == [-1, 3, 224, 224]
    config = client.get_model_config(MODEL).config
    assert (config.max_batch_size, list(config.input[0].dims)) == (16, [3, 224, 224])
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    index = client.get_model_repository_index().models
    assert {entry.state for entry in index} == {"READY"}
    assert len(index) == 4


def test_statistics_count(client: triton.InferenceServerClient) -> None:
    def read() -> Any:
        return client.get_inference_statistics(MODEL, "2").model_stats[0]

    before = read()
    client.infer(MODEL, [tensor(FILES)])
    after = read()
    assert after.inference_count - before.inference_count == 2
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.execution_count > before.execution_count
    assert len(client.get_inference_statistics().model_stats) == 4


@pytest.mark.parametrize(
    ("model", "version", "values", "datatype", "status"),
    [
        ("another", "", FILES, "BYTES", "NOT_FOUND"),
        (MODEL, "9", FILES, "BYTES", "NOT_FOUND"),
        (MODEL, "", np.array([b"hello"], dtype=object), "BYTES", "INVALID_ARGUMENT"),
        (MODEL, "", np.zeros((1, 3), np.float32), "FP32", "INVALID_ARGUMENT"),
        (MODEL, "", np.full((1, 3, 224, 224), np.nan, np.float32), "FP32", "INVALID_ARGUMENT"),
    ],
)
def test_errors_have_their_status(
    model: str, version: str, values: np.ndarray, datatype: str, status: str, client: triton.InferenceServerClient
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(values, datatype)], model_version=version)
    assert caught.value.status() == f"StatusCode.{status}"
    assert caught.value.message().endswith(".")
    assert client.is_server_ready()


def test_a_deadline_of_the_client_ends_the_work(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        client.infer(MODEL, [tensor(np.repeat(FILES, 20))], client_timeout=0.005)
    assert client.infer(MODEL, [tensor(FILES)]).as_numpy("output").shape == (2, 10)


def test_what_passed_its_deadline_and_what_is_not_offered_have_words_of_grpcs_own(
    client: triton.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException) as late:
        client.infer(MODEL, [tensor(FILES)], timeout=1)
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    shared = triton.InferInput("input", [1], "BYTES")
    shared.set_shared_memory("region", 10)
    with pytest.raises(InferenceServerException) as refused:
        client.infer(MODEL, [shared])
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_the_asyncio_client(address: str) -> None:
    async def talk() -> list[np.ndarray]:
        async with triton_aio.InferenceServerClient(address) as aio:
            assert await aio.is_server_ready()
            results = await asyncio.gather(*[aio.infer(MODEL, [tensor(FILES)]) for _ in range(4)])
            return [result.as_numpy("output") for result in results]

    first, *others = asyncio.run(talk())
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-4)


def test_a_stream_answers_every_request_and_outlives_an_error(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for model in (MODEL, "another", MODEL):
        client.async_stream_infer(model, [tensor(FILES)])
    got = [answers.get(timeout=NEVER) for _ in range(3)]
    client.stop_stream()
    assert [error is None for _, error in got] == [True, False, True]
    assert "another" in str(got[1][1])
    assert got[2][0].as_numpy("output").shape == (2, 10)


def test_the_one_answer_to_a_request_of_a_stream_says_that_it_is_the_last(
    client: triton.InferenceServerClient,
) -> None:
    """What clients of decoupled models wait for, whether or not they ask for an empty answer after the last one."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for wanted in (True, False):
        client.async_stream_infer(MODEL, [tensor(FILES)], enable_empty_final_response=wanted)
        result, error = answers.get(timeout=60)
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param
        assert result.as_numpy("output").shape == (2, 10)
    client.stop_stream()
    assert answers.empty()
    assert "triton_final_response" not in client.infer(MODEL, [tensor(FILES)]).get_response().parameters


NONSENSE = [b"\xff", b"\x0a\x05x", b"\x0a\x01\xff", b"\x0a\xff", b"\x07", b"\0" * 100]


@pytest.mark.parametrize("data", NONSENSE)
def test_a_malformed_message_is_an_invalid_argument(data: bytes, address: str, server: ServerProcess) -> None:
    schema = Schema("inference.proto")
    begun = len(server.log)
    with grpc.insecure_channel(address) as channel:
        for name in schema.calls.keys() - {"ModelStreamInfer"}:
            if name.startswith("Server"):
                continue  # whose messages have no field that could be wrong
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{schema.service}/{name}")(data)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == f"The {len(data)} bytes received are not a message {name}Request."
        good = schema.calls["ModelInfer"].request(model_name="another", id="mine").SerializeToString()
        stream = channel.stream_stream(
            f"/{schema.service}/ModelStreamInfer", None, schema.calls["ModelStreamInfer"].response.FromString
        )
        broken, answered = stream(iter([data, good]))
        assert "not a message" in broken.error_message
        assert "another" in answered.error_message
        assert answered.infer_response.id == "mine"
    assert not any("Traceback" in line for line in server.log[begun:])


def test_a_packed_message_is_bounded_by_what_it_unpacks_to(address: str, server: ServerProcess) -> None:
    schema = Schema("inference.proto")
    request = schema.calls["ModelInfer"].request(model_name=MODEL, raw_input_contents=[bytes(2**25)])
    request.inputs.add(name="input", datatype="BYTES", shape=[1])
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        infer = channel.unary_unary(f"/{schema.service}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            infer(request.SerializeToString())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def state(client: Any, name: str) -> set[str]:
    index = client.get_model_repository_index()
    entries = index if isinstance(index, list) else [{"name": m.name, "state": m.state} for m in index.models]
    return {entry["state"] for entry in entries if entry["name"] == name}


def images_wait(server: ServerProcess) -> bool:
    with server.client() as client:
        metrics = client.get("/metrics").text
    return re.search(r"^tessera_queue_depth_images [1-9]", metrics, re.MULTILINE) is not None


def infer_over_http(server: ServerProcess, model: str, files: np.ndarray) -> np.ndarray:
    with triton_http.InferenceServerClient(server.url.removeprefix("http://")) as client:
        sent = triton_http.InferInput("input", files.shape, "BYTES")
        sent.set_data_from_numpy(files)
        return client.infer(model, [sent]).as_numpy("output")


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_variant_is_unloaded_without_failing_a_request_and_loaded_again(
    transport: str, client: triton.InferenceServerClient, server: ServerProcess
) -> None:
    name = f"{MODEL}-baseline"
    many = np.repeat(FILES, 32)
    with (
        triton_http.InferenceServerClient(server.url.removeprefix("http://")) as http,
        # Not `async_infer`: that sends its body only while this thread waits for that client (gevent).
        ThreadPoolExecutor(1) as another,
    ):
        admin: Any = http if transport == "http" else client
        headers = BEARER if transport == "http" else {"authorization": BEARER["Authorization"]}
        with pytest.raises(InferenceServerException, match="token"):
            admin.unload_model(name)
        in_flight = another.submit(infer_over_http, server, name, many)
        until(lambda: images_wait(server))
        admin.unload_model(name, headers=headers)
        assert in_flight.result(timeout=NEVER).shape == (64, 10)
        assert state(admin, name) == {"UNAVAILABLE"}
        assert state(admin, MODEL) == {"READY", "UNAVAILABLE"}
        assert not admin.is_model_ready(name)
        assert not admin.is_model_ready(MODEL, "1")
        assert admin.is_model_ready(MODEL)
        with pytest.raises(InferenceServerException, match="unloaded") as caught:
            client.infer(MODEL, [tensor(FILES)], model_version="1")
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        assert client.infer(MODEL, [tensor(FILES)], model_version="2").as_numpy("output").shape == (2, 10)
        admin.load_model(name, headers=headers)
        assert state(admin, MODEL) == {"READY"}
        assert client.infer(name, [tensor(FILES)]).as_numpy("output").shape == (2, 10)


def health(channel: grpc.Channel, name: str, **fields: str) -> Any:
    schema = Schema("health.proto")
    call = schema.calls[name]
    make = channel.unary_stream if call.server_streams else channel.unary_unary
    ask = make(f"/{schema.service}/{name}", call.request.SerializeToString, call.response.FromString)
    return ask(call.request(**fields), timeout=NEVER)


def test_health_as_load_balancers_ask(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        for service in ("", "inference.GRPCInferenceService"):
            assert health(channel, "Check", service=service).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            health(channel, "Check", service="another")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watching = health(channel, "Watch", service="another")
        assert next(watching).status == 3
        watching.cancel()


def test_a_port_that_is_taken_is_said_so(address: str) -> None:
    from tests.servers import tessera

    port = address.rpartition(":")[2]
    ended = tessera("serve", "--port", "0", "--grpc-port", port)
    assert ended.returncode == 1
    assert "--grpc-port" in ended.stderr
    assert "Traceback" not in ended.stderr


# Frontends that wait for a file to go away before they begin.
HELD_FRONTENDS = """
import os, sys, time

while any("tessera.app.processes.frontend_process" in word for word in sys.orig_argv) and os.path.exists({gate!r}):
    time.sleep(0.02)
"""


def test_two_services_with_frontends_never_share_a_port(tmp_path: Path) -> None:
    from tests.servers import tessera

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "sitecustomize.py").write_text(HELD_FRONTENDS.format(gate=str(gate)))
    with ServerProcess(wait=False, modules=tmp_path, grpc_port=port, frontends=2) as first:
        until(lambda: any("listening for gRPC" in line for line in first.log))
        for frontends in (1, 0):
            ended = tessera("serve", "--port", "0", "--grpc-port", str(port), "--frontends", str(frontends))
            assert ended.returncode == 1, "the port is taken, though nobody listens on it yet"
            assert f"Port {port} on 127.0.0.1 is taken" in ended.stderr
        gate.unlink()
        first.wait_until_ready()
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert client.is_server_ready()
        assert first.stop() == 0, first.describe()


def test_with_frontends_every_process_answers_on_one_port_and_statistics_are_whole() -> None:
    with ServerProcess(grpc_port=0, frontends=2) as running:
        address = listening_at(running)
        # Each channel is a connection of its own, and the kernel spreads connections over the frontends.
        for _ in range(6):
            with triton.InferenceServerClient(address) as client:
                assert client.infer(MODEL, [tensor(FILES)], model_version="1").as_numpy("output").shape == (2, 10)
        with triton_http.InferenceServerClient(running.url.removeprefix("http://")) as http:
            (entry,) = http.get_inference_statistics(MODEL, "1")["model_stats"]
        assert entry["inference_stats"]["success"]["count"] == 6
        assert entry["inference_count"] == 12
        assert running.stop() == 0, running.describe()
