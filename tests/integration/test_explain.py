"""POST /v1/classify?explain=1: a heat map for every label, which adds up to its score."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from tests import imagefiles
from tests.integration.oip.requests import FILES, MODEL, pixels
from tests.processes import children, replaced
from tests.servers import REPOSITORY, ServerProcess
from tests.unit.models.classifiers import CLASSES, SIZE, classifier
from tests.waiting import until

VARIANTS = ("baseline", "optimised")
PATH = "/v1/classify"
EXPLAIN = {"explain": "1"}


def expect_maps(result: dict[str, Any], side: int) -> list[dict[str, Any]]:
    """The image's maps, every one of which adds up to its label's score."""
    maps = [prediction["heat_map"] for prediction in result["predictions"]]
    for drawn in maps:
        assert (drawn["height"], drawn["width"], len(drawn["values"])) == (side, side, side * side)
        mean = sum(drawn["values"]) / len(drawn["values"])
        assert drawn["bias"] + mean == pytest.approx(drawn["logit"], abs=1e-4)
    scores = [drawn["logit"] for drawn in maps]
    assert scores == sorted(scores, reverse=True)
    return maps


def ask(client: httpx.Client, variant: str, photo: bytes, **query: str) -> dict[str, Any]:
    answer = client.post(PATH, content=photo, params=query, headers={"X-Model-Variant": variant})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]
    return result


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_label_has_a_map_that_adds_up_to_its_score(client: httpx.Client, variant: str) -> None:
    plain = ask(client, variant, imagefiles.jpeg())
    explained = ask(client, variant, imagefiles.jpeg(), **EXPLAIN)
    expect_maps(explained, 7)
    bare = [{name: value for name, value in one.items() if name != "heat_map"} for one in explained["predictions"]]
    assert bare == plain["predictions"], "the answer itself is the same"
    assert ask(client, variant, imagefiles.jpeg(), explain="0").keys() == plain.keys()
    few = ask(client, variant, imagefiles.jpeg(), top_k="2", **EXPLAIN)
    assert few["predictions"] == explained["predictions"][:2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_maps_add_up_to_are_the_scores_that_the_other_protocol_gives(client: httpx.Client, variant: str) -> None:
    headers = {"X-Model-Variant": variant}
    form = [("file", (str(number), data)) for number, data in enumerate(FILES)]
    query = {**EXPLAIN, "top_k": "10"}
    results = client.post(PATH, files=form, params=query, headers=headers).json()["results"]
    tensor = {
        "name": "input",
        "datatype": "UINT8",
        "shape": [len(FILES), 224, 224, 3],
        "data": pixels().ravel().tolist(),
    }
    answer = client.post(f"/v2/models/{MODEL}/infer", json={"inputs": [tensor]}, headers=headers).json()
    logits = iter(answer["outputs"][0]["data"])
    for result in results:
        expect_maps(result, 7)
        score = {label["index"]: label["heat_map"]["logit"] for label in result["predictions"]}
        assert [score[index] for index in range(10)] == pytest.approx(list(islice(logits, 10)), abs=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_lies_where_the_thing_is(client: httpx.Client, variant: str) -> None:
    """A church on grey: the places that speak for it are on its side of the picture, wherever that is."""
    church = Image.open(REPOSITORY / "app" / "web" / "src" / "static" / "church.jpg").resize((112, 112))
    for left, top in ((0, 0), (112, 0), (0, 112), (112, 112)):
        picture = Image.new("RGB", (224, 224), (124, 116, 104))
        picture.paste(church, (left, top))
        # Resized to 256 and cut to 224 again by the service, which moves it by less than a tenth.
        labels = ask(client, variant, imagefiles.encode(picture, "PNG"), top_k="10", **EXPLAIN)["predictions"]
        (drawn,) = (label["heat_map"] for label in labels if label["label"] == "church")
        values = np.array(drawn["values"]).reshape(7, 7)
        across, down = np.maximum(values, 0).sum(0), np.maximum(values, 0).sum(1)
        assert (across[4:].sum() > across[:3].sum(), down[4:].sum() > down[:3].sum()) == (left > 0, top > 0), values


def test_requests_that_ask_and_requests_that_do_not_run_together(small_model: Path) -> None:
    photos = [imagefiles.jpeg(200 + 10 * number, 240) for number in range(6)]
    with (
        ServerProcess(model_path=small_model, request_timeout_ms=600_000, frontends=2) as server,
        server.client() as client,
        ThreadPoolExecutor(12) as callers,
    ):
        for variant in VARIANTS:
            right = [ask(client, variant, photo, **EXPLAIN)["predictions"] for photo in photos]
            plain = [[{k: v for k, v in one.items() if k != "heat_map"} for one in labels] for labels in right]

            def call(number: int, variant: str = variant) -> tuple[int, bool, list[dict[str, Any]]]:
                query = EXPLAIN if number % 3 == 0 else {}
                photo = photos[number % len(photos)]
                return number % len(photos), bool(query), ask(client, variant, photo, **query)["predictions"]

            for photo, explained, labels in callers.map(call, range(60)):
                wanted = right[photo] if explained else plain[photo]
                assert [one["label"] for one in labels] == [one["label"] for one in wanted]
                assert all(("heat_map" in one) == explained for one in labels)
                for one, other in zip(labels, right[photo], strict=True):
                    if explained:
                        assert one["heat_map"]["values"] == pytest.approx(other["heat_map"]["values"], abs=1e-3)
            files = [("file", (str(number), photo)) for number, photo in enumerate(photos)]
            many = client.post(PATH, files=files, params=EXPLAIN, headers={"X-Model-Variant": variant}).json()
            for labels, result in zip(right, many["results"], strict=True):
                side = labels[0]["heat_map"]["height"]
                for drawn, other in zip(expect_maps(result, side), labels, strict=True):
                    assert drawn["values"] == pytest.approx(other["heat_map"]["values"], abs=1e-3)
        former = children(server)["engine"]
        os.kill(former, signal.SIGKILL)
        until(replaced(server, "engine", former))
        for variant in VARIANTS:
            expect_maps(ask(client, variant, photos[0], **EXPLAIN), side)
        assert server.stop() == 0


def test_a_network_with_another_end_is_served_and_says_that_it_explains_nothing(tmp_path: Path) -> None:
    hidden = [
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["kept"]),
        helper.make_node("Gemm", ["kept", "w2", "b2"], ["first"], transB=1),
        helper.make_node("Relu", ["first"], ["logits"]),
    ]
    folder = tmp_path / "net"
    folder.mkdir()
    onnx.save(classifier(head=hidden), folder / "net.onnx")
    (folder / "labels.txt").write_text("".join(f"label {number}\n" for number in range(CLASSES)))
    prepared = f"[preprocessing]\nsize = {SIZE}\nresize = {SIZE}\n"
    (folder / "model.toml").write_text(f'name = "net"\nonnx = "net.onnx"\nlabels = "labels.txt"\n{prepared}')
    with ServerProcess(model_path=folder, cache_dir=tmp_path / "cache") as server, server.client() as client:
        variants = client.get("/v1/models").json()["models"][0]["variants"]
        assert [variant["explains"] for variant in variants] == [False, False]
        ask(client, "optimised", imagefiles.png())
        refusal = client.post(PATH, content=imagefiles.png(), params=EXPLAIN)
        assert (refusal.status_code, refusal.json()["code"]) == (422, "unexplainable")
        assert "global average pooling" in refusal.json()["error"]
        assert server.stop() == 0


def test_a_file_that_changed_under_the_service_is_no_reason_for_a_wrong_map(small_model: Path, tmp_path: Path) -> None:
    with ServerProcess(model_path=small_model, cache_dir=tmp_path) as server, server.client() as client:
        (graph,) = tmp_path.rglob("baseline.onnx")
        graph.write_bytes(graph.read_bytes())
        refusal = client.post(PATH, content=imagefiles.png(), params=EXPLAIN, headers={"X-Model-Variant": "baseline"})
        assert (refusal.status_code, refusal.json()["code"]) == (409, "load_failed")
        assert "not the file that was loaded" in refusal.json()["error"]
        ask(client, "baseline", imagefiles.png())
        assert server.stop() == 0


def test_models_say_that_both_variants_explain(client: httpx.Client) -> None:
    variants = client.get("/v1/models").json()["models"][0]["variants"]
    assert {variant["name"]: variant["explains"] for variant in variants} == dict.fromkeys(VARIANTS, True)
