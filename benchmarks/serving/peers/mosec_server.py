"""mosec: a stage of decoders and a stage that batches, each in processes of its own, as its documentation builds it."""

import json

from mosec import Server, Worker

from benchmarks.serving.peers.pipeline import DECODERS, MAX_BATCH, WORKERS, Classifier, Decoded, answer, decode


class Decode(Worker):
    """JPEG to pixels."""

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Decoded:
        return decode(data)


class Classify(Worker):
    """Pixels to the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def forward(self, data: list[Decoded]) -> list[dict[str, object]]:
        return [answer(scored) for scored in self.classifier.run(data)]

    def serialize(self, data: dict[str, object]) -> bytes:
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=DECODERS, timeout=30)
    server.append_worker(Classify, num=WORKERS, max_batch_size=MAX_BATCH, max_wait_time=1, timeout=30)
    server.run()
