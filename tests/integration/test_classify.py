"""The main job against a real server: every kind of image, raw and as a form, by either variant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests import imagefiles
from tests.imagefiles import KINDS
from tests.servers import ServerProcess

PATH = "/v1/classify"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_classified(kind: str, client: httpx.Client) -> None:
    answer = client.post(PATH, content=KINDS[kind]())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"model", "variant", "results"}
    (result,) = body["results"]
    assert set(result) == {"predictions", "timing"}
    assert set(result["timing"]) == {"decode_ms", "queue_ms", "compute_ms", "batch_size"}
    assert [prediction["rank"] for prediction in result["predictions"]] == [1, 2, 3, 4, 5]
    probabilities = [prediction["probability"] for prediction in result["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_header_chooses_the_variant_and_the_answer_says_who_it_was(client: httpx.Client) -> None:
    for sent, answered in (("baseline", "baseline"), ("optimised", "optimised"), (None, "optimised")):
        answer = client.post(PATH, content=imagefiles.jpeg(), headers={} if sent is None else {"X-Model-Variant": sent})
        assert answer.headers["X-Model-Variant"] == answer.json()["variant"] == answered


@pytest.mark.parametrize("content_type", ["image/jpeg", "text/plain", "application/x-www-form-urlencoded", "nonsense"])
def test_a_raw_body_may_have_any_content_type(content_type: str, client: httpx.Client) -> None:
    answer = client.post(PATH, content=imagefiles.jpeg(), headers={"Content-Type": content_type})
    assert answer.status_code == 200


def test_top_k_chooses_how_many(client: httpx.Client) -> None:
    for wanted in (1, 3, 10):
        answer = client.post(PATH, params={"top_k": wanted}, content=imagefiles.jpeg()).json()
        predictions = answer["results"][0]["predictions"]
        assert len(predictions) == wanted
    assert sum(prediction["probability"] for prediction in predictions) == pytest.approx(1, abs=1e-4)
    assert sorted(prediction["index"] for prediction in predictions) == list(range(10))


def test_many_images_in_one_form_keep_their_order_and_names(client: httpx.Client) -> None:
    kinds = ["jpeg", "png grey", "webp", "tiff 16-bit", "gif"] * 8
    singles = {
        kind: client.post(PATH, content=KINDS[kind]()).json()["results"][0]["predictions"] for kind in set(kinds)
    }
    files = [("file", (f"{number} {kind} \N{SNOWMAN}", KINDS[kind]())) for number, kind in enumerate(kinds)]
    results = client.post(PATH, files=files).json()["results"]
    assert [result["filename"] for result in results] == [name for _, (name, _) in files]
    for kind, result in zip(kinds, results, strict=True):
        assert result["predictions"][0]["index"] == singles[kind][0]["index"]
        assert result["predictions"][0]["probability"] == pytest.approx(singles[kind][0]["probability"], abs=0.01)
        assert result["timing"]["batch_size"] <= 16
    assert max(result["timing"]["batch_size"] for result in results) > 1


def test_sixteen_clients_share_batches_and_get_their_own_answers(server: ServerProcess) -> None:
    pictures = [imagefiles.jpeg(200 + 20 * number, 240) for number in range(16)]
    variants = ("baseline", "optimised")

    def ask(number: int) -> list[tuple[int, float, int]]:
        with server.client(headers={"X-Model-Variant": variants[number % 2]}) as client:
            answers = [client.post(PATH, content=pictures[number]).json() for _ in range(3)]
        assert {answer["variant"] for answer in answers} == {variants[number % 2]}
        results = [answer["results"][0] for answer in answers]
        return [
            (r["predictions"][0]["index"], r["predictions"][0]["probability"], r["timing"]["batch_size"])
            for r in results
        ]

    alone = [ask(number)[0] for number in range(16)]
    with ThreadPoolExecutor(16) as clients:
        together = list(clients.map(ask, range(16)))
    assert max(size for answers in together for _, _, size in answers) > 1, "requests shared batches"
    for (index, probability, _), answers in zip(alone, together, strict=True):
        for other_index, other_probability, size in answers:
            assert size <= 16
            assert other_index == index
            assert other_probability == pytest.approx(probability, abs=0.01)


def test_the_models_route_tells_what_runs(client: httpx.Client) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["name"] == "resnet50-imagenette"
    assert model["default_variant"] == "optimised"
    assert model["classes"] == 10
    baseline, optimised = model["variants"]
    assert (baseline["name"], baseline["backend"], baseline["precision"]) == ("baseline", "onnxruntime", "fp32")
    assert (optimised["name"], optimised["backend"]) == ("optimised", "cpu")
    assert 3.5e9 < baseline["macs_per_image"] < 4.5e9
