"""Ray Serve: decoding on threads of the replica, `serve.batch` without a wait."""

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.peers import pipeline
from benchmarks.serving.peers.pipeline import Classifier, Decoded, Scored, answer, decode


@serve.deployment(num_replicas=pipeline.WORKERS, max_ongoing_requests=128, max_queued_requests=128)
class Api:
    """Decode and classify in the replica."""

    def __init__(self) -> None:
        self.classifier = Classifier()
        self.decoders = ThreadPoolExecutor(pipeline.DECODERS)
        self.engine = ThreadPoolExecutor(1)

    @serve.batch(max_batch_size=pipeline.MAX_BATCH, batch_wait_timeout_s=0.0)
    async def classify(self, photos: list[Decoded]) -> list[Scored]:
        return await asyncio.get_running_loop().run_in_executor(self.engine, self.classifier.run, photos)

    async def __call__(self, request: Request) -> dict[str, Any]:
        body = await request.body()
        photo = await asyncio.get_running_loop().run_in_executor(self.decoders, decode, body)
        return answer(await self.classify(photo))


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 1024 * 1024)
    serve.start(http_options={"host": "127.0.0.1", "port": pipeline.PORT, "request_timeout_s": pipeline.DEADLINE})
    serve.run(Api.options(ray_actor_options={"num_cpus": 1}).bind(), route_prefix="/classify")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()
