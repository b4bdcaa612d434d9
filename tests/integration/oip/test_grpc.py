"""The Open Inference Protocol over gRPC, with the clients that people use, against a real server."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

from tessera.app.oip.grpc.schema import Schema
from tessera.wording import counted
from tests.integration.oip.grpc_clients import FILES, MODEL, health, listening_at, tensor
from tests.servers import ServerProcess
from tests.waiting import NEVER


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(grpc_port=0) as running:
        yield running
        # A client that watches the health of a server that ends is told so, and does not hold up its end.
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


@pytest.mark.parametrize("name", ["v1", "v1alpha"])
def test_reflection_lists_what_there_is(address: str, name: str) -> None:
    """As a tool does it that knows no file of ours."""
    with grpc.insecure_channel(address) as channel:
        schema = Schema("reflection.proto")
        call = schema.calls["ServerReflectionInfo"]
        path = f"/grpc.reflection.{name}.ServerReflection/ServerReflectionInfo"
        ask = channel.stream_stream(path, call.request.SerializeToString, call.response.FromString)
        questions = [
            call.request(list_services=""),
            call.request(file_containing_symbol="grpc.health.v1.Health"),
            call.request(file_containing_symbol="no.such.Thing"),
            call.request(all_extension_numbers_of_type="inference.ModelInferRequest"),
        ]
        services, health_file, unknown, extensions = ask(iter(questions), timeout=NEVER)
    listed = {service.name for service in services.list_services_response.service}
    assert listed == {"inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
    (file,) = health_file.file_descriptor_response.file_descriptor_proto
    assert b"HealthCheckResponse" in file
    assert unknown.error_response.error_code == extensions.error_response.error_code == 5


def test_a_client_that_has_no_proto_file_learns_the_messages_and_classifies(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        method = service.methods_by_name["ModelInfer"]
        request, response = (GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        ask = channel.unary_unary(f"/{service.full_name}/ModelInfer", request.SerializeToString, response.FromString)
        photo = {"name": "input", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [FILES[0]]}}
        answer = ask(request(model_name=MODEL, inputs=[photo]), timeout=NEVER)
    assert list(answer.outputs[0].shape) == [1, 10]


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
            assert (
                caught.value.details()
                == f"What was received, {counted(len(data), 'byte')}, is not a message {name}Request."
            )
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
