"""Our `.proto` files have the public protocol's names, numbers and types: checked against a client made from it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tessera.app.oip.grpc.schema import Schema
from tessera.app.oip.wire import description
from tessera.app.oip.wire.description import Duration, ModelDescription, VariantStatistics


def fields(descriptor: Any) -> Iterator[tuple[str, int, int, bool, str]]:
    """Full name, number, type, repeated and message name of every field, nested messages included."""
    for field in descriptor.fields:
        inner = field.message_type or field.enum_type
        yield field.full_name, field.number, field.type, field.is_repeated, inner.full_name if inner else ""
    for nested in descriptor.nested_types:
        yield from fields(nested)


@pytest.fixture(scope="module")
def public() -> dict[str, Any]:
    from tritonclient.grpc import model_config_pb2, service_pb2

    return {
        name: message
        for module in (service_pb2, model_config_pb2)
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
    }


def test_the_descriptors_are_those_of_the_proto_files(tmp_path: Path) -> None:
    from grpc_tools import protoc

    compiled = tmp_path / "descriptors.binpb"
    with resources.as_file(resources.files("tessera.app.oip.grpc.proto")) as folder:
        names = sorted(file.name for file in folder.glob("*.proto"))
        assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={compiled}", *names]) == 0
        committed = (folder / "descriptors.binpb").read_bytes()
    fresh = FileDescriptorSet.FromString(compiled.read_bytes())
    assert {file.name: file for file in FileDescriptorSet.FromString(committed).file} == {
        file.name: file for file in fresh.file
    }, "run `make descriptors`"


def test_every_field_is_the_public_one(public: dict[str, Any]) -> None:
    schema = Schema("inference.proto")
    seen = 0
    for name, theirs in public.items():
        try:
            ours = schema[name].DESCRIPTOR
        except KeyError:
            continue
        known = set(fields(theirs))
        for field in fields(ours):
            assert field in known
            seen += 1
    assert seen > 150


def test_messages_that_requests_and_answers_are_made_of_are_complete(public: dict[str, Any]) -> None:
    schema = Schema("inference.proto")
    # Of a model's configuration only what means something here is there; protobuf keeps what it does not know.
    for call in schema.calls.values():
        for message in (call.request, call.response):
            assert set(fields(message.DESCRIPTOR)) == set(fields(public[message.DESCRIPTOR.name]))


def test_calls_have_the_public_messages() -> None:
    from tritonclient.grpc import service_pb2

    schema = Schema("inference.proto")
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert schema.service == service.full_name
    theirs = {
        method.name: (
            method.input_type.name,
            method.output_type.name,
            method.client_streaming,
            method.server_streaming,
        )
        for method in service.methods
    }
    for name, call in schema.calls.items():
        ours = (call.request.DESCRIPTOR.name, call.response.DESCRIPTOR.name, call.client_streams, call.server_streams)
        assert ours == theirs[name]


def test_documents_of_the_rest_protocol_fit_the_messages() -> None:
    from google.protobuf import json_format

    schema = Schema("inference.proto")
    model = ModelDescription("m", ("1", "2"), "cpu", "tessera_onnx", "input", "output", (224, 224), 10, 16)
    statistics = VariantStatistics(success=Duration(1, 250_000_000), batches={4: Duration(2, 10**9)})
    documents: dict[str, dict[str, object]] = {
        "ServerMetadataResponse": description.describe_server("1.0"),
        "ModelMetadataResponse": description.describe_model(model),
        "ModelConfig": description.configure_model(model),
        "ModelStatistics": description.describe_statistics("m", "1", statistics, memory=7),
    }
    for name, document in documents.items():
        message = json_format.ParseDict(document, schema[name]())
        back = schema[name].FromString(message.SerializeToString())
        assert back == message
    assert json_format.ParseDict(documents["ModelConfig"], schema["ModelConfig"]()).input[0].data_type == 11
