"""The JSON of answers under /v1 and of probes, for the OpenAPI document: what handlers build as plain dictionaries."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tessera.models.evaluation.intervals import CONFIDENCE

Name = Annotated[str, Field(examples=["optimised"])]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = dict[str, Share]


def answer(body: Any, description: str) -> dict[int | str, dict[str, Any]]:
    """An operation's successful answer, as FastAPI takes it; the handler's own return type is to be left out there."""
    return {200: {"model": body, "description": description}}


class ErrorBody(BaseModel):
    """Every error answer."""

    error: str = Field(description="what is wrong, in a sentence", examples=["The image is empty (0 bytes)."])
    code: str = Field(description="the same as a word for programs", examples=["empty_body"])
    request_id: str = Field(
        description="also in X-Request-ID and in the log", examples=["a75235d1b6234abcb1f3d40f471fb989"]
    )


class HeatMapBody(BaseModel):
    """Where a label's score comes from: logit = bias + sum(values) / (height x width)."""

    logit: float = Field(description="the score, before the probabilities are made of all scores")
    bias: float
    height: int
    width: int
    values: list[float] = Field(description="rows from top to bottom, over the square that the network sees")


class PredictionBody(BaseModel):
    """One label and how likely it is."""

    rank: int
    index: int
    label: str
    probability: float
    heat_map: HeatMapBody | None = Field(None, description="only with explain=1")


class TimingBody(BaseModel):
    """Where an image's time went."""

    decode_ms: float
    queue_ms: float
    compute_ms: float
    batch_size: int


class ResultBody(BaseModel):
    """One image."""

    filename: str | None = Field(None, description="as sent in the multipart part; absent for a raw body")
    predictions: list[PredictionBody]
    timing: TimingBody


class ClassifyBody(BaseModel):
    """A successful answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "resnet50-imagenette",
                "variant": "optimised",
                "results": [
                    {
                        "predictions": [{"rank": 1, "index": 0, "label": "tench", "probability": 0.9371}],
                        "timing": {"decode_ms": 2.1, "queue_ms": 0.1, "compute_ms": 11.8, "batch_size": 1},
                    }
                ],
            }
        }
    )

    model: str
    variant: str
    results: list[ResultBody]


class HealthBody(BaseModel):
    """The process works."""

    status: Literal["alive"]


class ReadyBody(BaseModel):
    """It should get traffic."""

    status: Literal["ready"]
    model: str = Field(examples=["resnet50-imagenette"])
    variants: list[Name] = Field(description="those that are loaded")


class GateBody(BaseModel):
    """What the accuracy gate said of a variant when it was quantised, on photos that nothing was fitted to."""

    met: bool
    images: int
    sqnr: float | None = Field(description="decibels")
    agreement: Share | None
    least_sqnr: float = Field(description="what was asked")
    least_agreement: Share = Field(description="what was asked")


class ServedVariantBody(BaseModel):
    """One way to run the model."""

    name: Name
    loaded: bool
    backend: str = Field(examples=["cpu"])
    isa: str = Field(description="instruction-set level of its kernels", examples=["avx512vnni"])
    precision: str = Field(description="what most multiplications run in", examples=["int8"])
    threads: int
    macs_per_image: int
    arena_bytes: int = Field(description="activation memory held between runs, of all sizes")
    explains: bool = Field(description="whether it takes explain=1")
    gate: GateBody | None = Field(None, description="absent where it was not kept")
    note: str | None = Field(None, description="where it is not what people may expect")


class InputBody(BaseModel):
    """What the network sees of a photo: scaled to cover a frame in the proportions of `size`, of that the middle.

    For a square size, the photo's shorter side is scaled to `resize`.
    """

    size: int | list[int] = Field(description="of a square; a rectangle's height and width otherwise", examples=[224])
    resize: int = Field(description="the frame's shorter side", examples=[256])


class ModelBody(BaseModel):
    """A model and its variants."""

    name: str = Field(examples=["resnet50-imagenette"])
    default_variant: Name
    classes: int
    input: InputBody
    sizes: list[InputBody] | None = Field(
        None, description="all that `size` may ask for, the usual one first; absent where there is one"
    )
    variants: list[ServedVariantBody]


class ModelsBody(BaseModel):
    """What is served."""

    models: list[ModelBody]


class StateBody(BaseModel):
    """What an admin verb has led to."""

    variant: Name
    loaded: bool


class ResetBody(BaseModel):
    """Whether there was a trip to end."""

    reset: bool


class EstimateBody(BaseModel):
    """An estimate and its interval; null where nothing is known yet."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float = Field(examples=[CONFIDENCE])
    method: str = Field(examples=["Wilson"])


class AgreementBody(EstimateBody):
    """Share of images that got the same label."""

    images: int


class SpeedUpBody(EstimateBody):
    """How many times as fast, on the same images."""

    pairs: int


class DistributionBody(BaseModel):
    """Mean and quantiles; null where there is nothing."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class LatencyBody(DistributionBody):
    """Milliseconds."""

    count: int


class RequestsBody(BaseModel):
    """Answered requests, and why their variant was chosen."""

    total: int
    chosen_by: dict[str, int] = Field(examples=[{"explicit": 1, "guard": 0, "split": 0, "default": 4}])


class VariantExperimentBody(BaseModel):
    """One variant's part in the experiment."""

    requests: RequestsBody
    latency_ms: LatencyBody


class SplitBody(BaseModel):
    """Which share of requests that name no variant each one gets."""

    configured: Shares | None = Field(examples=[{"baseline": 0.5, "optimised": 0.5}])
    live: Shares = Field(examples=[{"baseline": 0.5, "optimised": 0.5}])
    default_variant: Name
    key_header: str = Field(examples=["X-Experiment-Key"])
    salt: str


class ShadowBody(BaseModel):
    """What running images again with the other variant has shown."""

    share: Share
    images: dict[str, int] = Field(examples=[{"compared": 120, "dropped": 3, "failed": 0}])
    agreement: AgreementBody
    logit_distance: DistributionBody
    speed_up: SpeedUpBody


class GuardEventBody(BaseModel):
    """A change of the guard's state."""

    at: str = Field(description="ISO 8601", examples=["2026-11-22T22:03:16.792Z"])
    event: str = Field(examples=["tripped"])
    why: str
    agreement: AgreementBody


class GuardBody(BaseModel):
    """The accuracy guard; off, it has a state, a reason and an empty history only."""

    state: Literal["off", "watching", "tripped"]
    why: str
    bound: Share | None = None
    window: int | None = None
    recovery: str | None = None
    agreement: AgreementBody | None = None
    trips: int | None = None
    history: list[GuardEventBody]


class ExperimentsBody(BaseModel):
    """The experiment since the start of the service."""

    model: str
    since: str = Field(description="ISO 8601", examples=["2026-11-22T22:03:16.792Z"])
    split: SplitBody
    variants: dict[str, VariantExperimentBody]
    shadow: ShadowBody
    guard: GuardBody
