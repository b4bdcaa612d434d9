"""The JSON of answers under /v2, for the OpenAPI document: what `tessera.app.oip.wire` builds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tessera.app.oip.wire.description import EXTENSIONS, READY, SERVER_NAME


class _Body(BaseModel):
    """A body whose fields may begin with "model_", as Triton's do."""

    model_config = ConfigDict(protected_namespaces=())


class ServerBody(_Body):
    """The server."""

    name: str = Field(examples=[SERVER_NAME])
    version: str
    extensions: list[str] = Field(examples=[list(EXTENSIONS)])


class LiveBody(_Body):
    """The server is alive."""

    live: bool = Field(examples=[True])


class ServerReadyBody(_Body):
    """The server takes requests."""

    ready: bool = Field(examples=[True])


class ModelReadyBody(ServerReadyBody):
    """A model takes requests."""

    name: str = Field(examples=["resnet50-imagenette"])


class TensorBody(_Body):
    """An input or output as the metadata declare it; the batch is -1."""

    name: str = Field(examples=["input"])
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(examples=[[-1, 3, 224, 224]])


class MetadataBody(_Body):
    """A model."""

    name: str = Field(examples=["resnet50-imagenette"])
    versions: list[str] = Field(examples=[["1", "2"]])
    platform: str = Field(examples=["tessera_onnx"])
    inputs: list[TensorBody]
    outputs: list[TensorBody]


class ConfiguredTensorBody(_Body):
    """An input or output as Triton's ModelConfig has it; dims leave out the batch."""

    name: str
    data_type: str = Field(examples=["TYPE_FP32"])
    format: str | None = Field(None, description="of the input", examples=["FORMAT_NCHW"])
    dims: list[int]
    is_shape_tensor: bool
    label_filename: str | None = Field(None, description="of the output")
    allow_ragged_batch: bool | None = Field(None, description="of the input")
    optional: bool | None = Field(None, description="of the input")


class ConfigBody(_Body):
    """A model's configuration, as much of Triton's ModelConfig as has a meaning here."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[ConfiguredTensorBody]
    output: list[ConfiguredTensorBody]
    instance_group: list[dict[str, Any]]
    dynamic_batching: dict[str, Any]
    parameters: dict[str, dict[str, str]]
    model_transaction_policy: dict[str, bool]


class DurationBody(_Body):
    """How often something happened, and how long it took in all."""

    count: int
    ns: int


class BatchStatisticsBody(_Body):
    """Batches of one size."""

    batch_size: int
    compute_input: DurationBody
    compute_infer: DurationBody
    compute_output: DurationBody


class MemoryBody(_Body):
    """Memory held between batches."""

    type: str
    id: int
    byte_size: int


class ModelStatisticsBody(_Body):
    """What a version of a model has done."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970, 0 for never")
    inference_count: int
    execution_count: int
    inference_stats: dict[str, DurationBody]
    response_stats: dict[str, Any]
    batch_stats: list[BatchStatisticsBody]
    memory_usage: list[MemoryBody]


class StatisticsBody(_Body):
    """Statistics of models and versions."""

    model_stats: list[ModelStatisticsBody]


class IndexEntryBody(_Body):
    """A version of a model in the repository."""

    name: str
    version: str
    state: str = Field(examples=[READY])
    reason: str = Field(description="why it is not ready")


class OutputBody(_Body):
    """One output of an infer answer."""

    name: str = Field(examples=["output"])
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(examples=[[1, 10]])
    parameters: dict[str, int] | None = Field(None, description="binary_data_size, where the data follow the JSON")
    data: list[float | str] | None = Field(None, description="row by row, where they are in the JSON")


class InferBody(_Body):
    """An infer answer, or the JSON at its start."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="the request's own, if it had one")
    outputs: list[OutputBody]
