"""What the server says of itself and of its models: metadata, configuration, statistics, repository index.

Every function returns the JSON object of the REST protocol. The same objects become the gRPC messages, whose fields
have the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SERVER_NAME = "tessera"

# As Triton names them; only what is there.
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)

READY = "READY"
UNAVAILABLE = "UNAVAILABLE"

# What the one input takes besides the tensor that the metadata declare; a datatype has one line there.
_ACCEPTS = "FP32 {normalised} normalised | UINT8 {pixels} RGB pixels | BYTES [N] image files"


@dataclass(frozen=True)
class ModelDescription:
    """One addressable model.

    Attributes:
        name: As addressed.
        versions: The versions it has.
        backend: The engine backend of what answers when no version is named.
        platform: As the protocol calls that backend.
        input_name: Name of the input.
        output_name: Name of the output.
        image: Height and width of the input.
        classes: Scores per image.
        max_batch: Most images that the engine runs together.
        others: Heights and widths of further images that it takes.
    """

    name: str
    versions: tuple[str, ...]
    backend: str
    platform: str
    input_name: str
    output_name: str
    image: tuple[int, int]
    classes: int
    max_batch: int
    others: tuple[tuple[int, int], ...] = ()


@dataclass
class Duration:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0

    def to_json(self) -> dict[str, int]:
        """As the protocol writes it."""
        return {"count": self.count, "ns": self.ns}


@dataclass
class VariantStatistics:
    """What one variant has done since the start of the process.

    Attributes:
        last_inference: Milliseconds since 1970, 0 for never.
        inference_count: Images run.
        execution_count: Batches run.
        success: Requests answered, from their headers to the answer.
        fail: Requests that the variant should have answered and that got an error.
        queue: Per request, from joining the queue to the start of its first batch.
        compute_input: Per request, decoding its images or copying its tensor.
        compute_infer: Per request, from the start of its first batch to the end of its last.
        compute_output: Per request, building the answer.
        batches: Run time by batch size, per batch.
    """

    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)


def describe_server(version: str) -> dict[str, object]:
    """The server's metadata."""
    return {"name": SERVER_NAME, "version": version, "extensions": list(EXTENSIONS)}


def describe_model(model: ModelDescription) -> dict[str, object]:
    """A model's metadata; the batch dimension is -1."""
    height, width = model.image
    return {
        "name": model.name,
        "versions": list(model.versions),
        "platform": model.platform,
        "inputs": [{"name": model.input_name, "datatype": "FP32", "shape": [-1, 3, height, width]}],
        "outputs": [{"name": model.output_name, "datatype": "FP32", "shape": [-1, model.classes]}],
    }


def configure_model(model: ModelDescription) -> dict[str, object]:
    """A model's configuration, as much of Triton's `ModelConfig` as has a meaning here; dims leave out the batch."""
    height, width = model.image
    accepts = _ACCEPTS.format(
        normalised=" or ".join(f"[N,3,{high},{wide}]" for high, wide in (model.image, *model.others)),
        pixels=" or ".join(f"[N,{high},{wide},3]" for high, wide in (model.image, *model.others)),
    )
    return {
        "name": model.name,
        "platform": model.platform,
        "backend": model.backend,
        "version_policy": {"specific": {"versions": [int(version) for version in model.versions]}},
        "max_batch_size": model.max_batch,
        "input": [
            {
                "name": model.input_name,
                "data_type": "TYPE_FP32",
                "format": "FORMAT_NCHW",
                "dims": [3, height, width],
                "is_shape_tensor": False,
                "allow_ragged_batch": False,
                "optional": False,
            }
        ],
        "output": [
            {
                "name": model.output_name,
                "data_type": "TYPE_FP32",
                "dims": [model.classes],
                "label_filename": "labels.txt",
                "is_shape_tensor": False,
            }
        ],
        "instance_group": [{"name": model.name, "kind": "KIND_CPU", "count": 1}],
        "dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": 0},
        "parameters": {"input_accepts": {"string_value": accepts}},
        "model_transaction_policy": {"decoupled": False},
    }


def describe_statistics(name: str, version: str, statistics: VariantStatistics, *, memory: int) -> dict[str, object]:
    """One entry of `model_stats`; there is no response cache, so its two durations stay 0.

    Args:
        name: The model's name.
        version: Its version.
        statistics: What has been counted.
        memory: Bytes of memory that it holds between batches.
    """
    nothing = Duration().to_json()
    return {
        "name": name,
        "version": version,
        "last_inference": statistics.last_inference,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": statistics.success.to_json(),
            "fail": statistics.fail.to_json(),
            "queue": statistics.queue.to_json(),
            "compute_input": statistics.compute_input.to_json(),
            "compute_infer": statistics.compute_infer.to_json(),
            "compute_output": statistics.compute_output.to_json(),
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": nothing,
                "compute_infer": duration.to_json(),
                "compute_output": nothing,
            }
            for size, duration in sorted(statistics.batches.items())
        ],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": memory}],
    }


def index_entry(name: str, version: str, state: str, reason: str) -> dict[str, str]:
    """One entry of the repository index; `reason` says why it is not READY."""
    return {"name": name, "version": version, "state": state, "reason": reason}


def index(entries: Iterable[Mapping[str, str]], *, ready_only: bool) -> Sequence[Mapping[str, str]]:
    """The repository index, of ready models only where the client asks for that."""
    return [entry for entry in entries if not ready_only or entry["state"] == READY]
