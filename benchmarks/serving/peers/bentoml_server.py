"""BentoML: a service that decodes in front of a batchable service with the model, its documented composition."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.serving.peers.pipeline import (
    DEADLINE,
    DECODERS,
    MAX_BATCH,
    WORKERS,
    Classifier,
    Decoded,
    Scored,
    answer,
    decode,
)

_TRAFFIC = {"timeout": DEADLINE, "max_concurrency": 512}
_LOGGING = {"access": {"enabled": False}}


@bentoml.service(name="model", workers=WORKERS, traffic=_TRAFFIC, logging=_LOGGING)
class Model:
    """The batchable half."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=MAX_BATCH, max_latency_ms=int(DEADLINE * 1000))
    def classify(self, pixels: np.ndarray) -> np.ndarray:
        """Uint8 [n, 224, 224, 3] to float64 [n, classes + 3]: logits, then start, seconds and size of the batch."""
        started = time.perf_counter()
        scored = self.classifier.run([Decoded(row, 0.0, started) for row in pixels])
        return np.stack([np.append(s.logits, [started, s.compute_seconds, s.batch_size]) for s in scored])


async def _classify(request: Request) -> JSONResponse:
    service = bentoml.get_current_service()
    try:
        return JSONResponse(await service.answer(await request.body()))
    except BentoMLException as error:  # the model's refusal is an answer, not a failure of this half
        return JSONResponse({"error": str(error)}, status_code=int(error.error_code))


@bentoml.service(name="api", workers=1, traffic=_TRAFFIC, logging=_LOGGING)
@bentoml.asgi_app(Starlette(routes=[Route("/classify", _classify, methods=["POST"])]))
class Api:
    """The half that speaks HTTP and decodes."""

    model = bentoml.depends(Model)

    def __init__(self) -> None:
        self.decoders = ThreadPoolExecutor(DECODERS)

    async def answer(self, data: bytes) -> dict[str, object]:
        """JPEG to the JSON answer."""
        photo = await asyncio.get_running_loop().run_in_executor(self.decoders, decode, data)
        row = (await self.model.to_async.classify(photo.pixels[None]))[0]
        started, seconds, size = (float(value) for value in row[-3:])
        scored = Scored(row[:-3].astype(np.float32), photo.seconds, started - photo.ready_at, seconds, int(size))
        return answer(scored)
