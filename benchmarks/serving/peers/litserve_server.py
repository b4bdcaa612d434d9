"""LitServe: batches as they come (timeout 0), decoded on threads in `batch` as its own image example does."""

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import litserve
from fastapi import Body

from benchmarks.serving.peers import pipeline
from benchmarks.serving.peers.pipeline import Classifier, Decoded, Scored, answer, decode


class Api(litserve.LitAPI):
    """Decode and classify in the worker."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier()
        self.pool = ThreadPoolExecutor(pipeline.DECODERS)

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[Decoded]:
        return list(self.pool.map(decode, inputs))

    def predict(self, photos: list[Decoded]) -> list[Scored]:
        return self.classifier.run(photos)

    def unbatch(self, output: list[Scored]) -> list[Scored]:
        return output

    def encode_response(self, output: Scored) -> dict[str, Any]:
        return answer(output)


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=pipeline.MAX_BATCH, batch_timeout=0.0),
        accelerator="cpu",
        workers_per_device=pipeline.WORKERS,
        timeout=pipeline.DEADLINE,
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=pipeline.PORT, generate_client_file=False, log_level="warning", num_api_servers=1)
