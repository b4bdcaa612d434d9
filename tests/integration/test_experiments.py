"""A/B against real servers: a split that sticks, a shadow that compares, and a guard that trips when it must."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import save_file

from tessera.models.quantise import quantise_model
from tests.servers import ServerProcess
from tests.unit.models.tiny import LABELS, tiny_state
from tests.waiting import until

CLASSIFY = "/v1/classify"
RESET = "/v1/experiments/guard/reset"
TOKEN = "a token of sixteen or more"


def picture(seed: int) -> bytes:
    """A smooth picture, another for every seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((224, 224), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose optimised variant agrees with its baseline on nearly every picture."""
    folder = tmp_path_factory.mktemp("models") / "right"
    folder.mkdir()
    # With these weights a wrong variant names a class that the right one never does.
    save_file(tiny_state(seed=2, blocks=(1, 1, 1, 1)), folder / "weights.safetensors")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    description = 'name = "small"\narchitecture = "resnet"\nweights = "weights.safetensors"\n'
    (folder / "model.toml").write_text(description + "[preprocessing]\nsize = 224\nresize = 224\n")
    photos = tmp_path_factory.mktemp("photos")
    for seed in range(16):
        (photos / f"{seed}.png").write_bytes(picture(1000 + seed))
    quantise_model(folder, photos, into_folder=True, accept=True, bias_correction=False)
    return folder


@pytest.fixture(scope="module")
def wrong(right: Path) -> Path:
    """The same model calibrated wrongly, so that every layer of its optimised variant saturates."""
    folder = right.parent / "wrong"
    folder.mkdir()
    for file in right.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    calibration = json.loads((folder / "calibration.json").read_text())
    ranges = calibration["ranges"]
    calibration["ranges"] = {name: [end * 0.002 for end in ends] for name, ends in ranges.items()}
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder


def start(folder: Path, **settings: object) -> ServerProcess:
    # "cpu": our engine runs the optimised variant, however busy the machine is.
    return ServerProcess(model_path=folder, cache_dir=folder.parent / "cache", backend="cpu", **settings)


def ask(client: httpx.Client, seed: int, **headers: str) -> str:
    """Classify a picture; returns who answered."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(CLASSIFY, content=picture(seed), headers=sent)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Model-Variant"] == answer.json()["variant"]
    return answer.headers["X-Model-Variant"]


def infer(client: httpx.Client, **headers: str) -> str:
    """Run a tensor by the Open Inference Protocol's raw request; returns who answered."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    tensor = np.zeros((1, 3, 224, 224), np.float32).tobytes()
    raw = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    answer = client.post("/v2/models/small/infer", content=tensor, headers={**sent, **raw})
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Model-Variant"]


def shown(client: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/v1/experiments").json()
    return answer


def wait_until(client: httpx.Client, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for what happens off the path of requests."""
    state: dict[str, Any] = {}

    def happened() -> bool:
        nonlocal state
        state = shown(client)
        return condition(state)

    until(happened)
    return state


def ended(state: dict[str, Any]) -> int:
    return sum(state["shadow"]["images"].values())


def metrics(client: httpx.Client) -> dict[str, float]:
    """Value per sample name and label values, in the order of the labels' names."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        " ".join(
            [sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "le")]
        ): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.effect_of("shadow_share", "guard_agreement")
@pytest.mark.parametrize("frontends", [0, 2])
def test_a_wrong_variant_trips_the_guard_and_traffic_moves(wrong: Path, frontends: int) -> None:
    settings = {
        "shadow_share": 1,
        "guard_agreement": 0.8,
        "frontends": frontends,
        "admin": "true",
        "admin_token": TOKEN,
    }
    # Every request on a connection of its own, so that all frontends get some.
    with start(wrong, **settings) as server, server.client(headers={"Connection": "close"}) as client:
        assert shown(client)["guard"]["state"] == "watching"
        assert metrics(client)["tessera_guard_tripped"] == 0
        answers: list[str] = []
        while answers[-5:] != ["baseline"] * 5:
            answers.append(ask(client, len(answers)))
            assert len(answers) < 100, shown(client)
            asked = len(answers)
            wait_until(client, lambda state, images=asked: ended(state) >= images)
        assert answers == sorted(answers, reverse=True), "optimised until it trips, then baseline"
        assert ask(client, 300, X_Model_Variant="optimised") == "optimised", "an explicit choice is a contract"
        assert infer(client) == "baseline", "whatever the protocol"

        state = wait_until(client, lambda state: ended(state) >= len(answers) + 2)
        assert state["guard"]["state"] == "tripped"
        assert "compared images got the same top label" in state["guard"]["why"]
        assert [event["event"] for event in state["guard"]["history"]] == ["tripped"]
        assert state["guard"]["history"][0]["agreement"]["high"] < 0.8
        assert state["split"]["live"] == {"baseline": 1.0, "optimised": 0.0}
        moved = answers.count("baseline") + 1
        chosen = {name: variant["requests"]["chosen_by"] for name, variant in state["variants"].items()}
        assert chosen == {
            "baseline": {"explicit": 0, "guard": moved, "split": 0, "default": 0},
            "optimised": {"explicit": 1, "guard": 0, "split": 0, "default": answers.count("optimised")},
        }
        counted = metrics(client)
        assert counted["tessera_guard_tripped"] == 1
        assert counted["tessera_guard_events_total tripped"] == 1
        assert counted["tessera_split_ratio baseline"] == 1
        assert counted["tessera_routed_requests_total guard baseline"] == moved
        assert counted["tessera_shadow_agreement_ratio"] < 0.8
        assert any("accuracy guard" in line and "error" in line for line in server.log), server.describe()

        assert client.post(RESET).status_code == 401
        assert client.post(RESET, headers={"Authorization": f"Bearer {TOKEN}"}).json() == {"reset": True}
        state = wait_until(client, lambda state: state["guard"]["state"] == "watching")
        assert [event["event"] for event in state["guard"]["history"]] == ["tripped", "reset"]
        assert client.post(RESET, headers={"Authorization": f"Bearer {TOKEN}"}).json() == {"reset": False}
        wait_until(client, lambda _: ask(client, 400) == "optimised")  # every frontend hears of it on its own
        assert server.stop() == 0


def test_a_right_variant_keeps_its_traffic_and_is_measured(right: Path) -> None:
    with start(right, shadow_share=1, guard_agreement=0.8) as server, server.client() as client:
        for seed in range(40):
            assert ask(client, seed) == "optimised"
            wait_until(client, lambda state, images=seed + 1: ended(state) >= images)
        state = shown(client)
        assert state["guard"]["state"] == "watching"
        assert state["guard"]["history"] == []
        agreement = state["shadow"]["agreement"]
        assert agreement["images"] >= 20, "an idle service drops hardly any"
        assert 0.8 < agreement["value"] <= agreement["high"] <= 1
        assert agreement["low"] < agreement["value"]
        speed_up = state["shadow"]["speed_up"]
        assert speed_up["pairs"] == agreement["images"], "one image at a time: every pair has batches of one"
        assert 0 < speed_up["low"] < speed_up["value"] < speed_up["high"]
        assert 0 < state["shadow"]["logit_distance"]["p50"] < 1
        latency = state["variants"]["optimised"]["latency_ms"]
        assert latency["count"] == 40
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        counted = metrics(client)
        assert counted["tessera_shadow_images_total compared"] == agreement["images"]
        assert counted["tessera_shadow_logit_distance_ratio_count"] == agreement["images"]
        assert counted["tessera_shadow_speedup_ratio"] > 0
        assert server.stop() == 0


@pytest.mark.effect_of("split")
def test_the_split_is_kept_sticky_and_shown(right: Path) -> None:
    with start(right, split="optimised=70,baseline=30", split_salt="spring") as server, server.client() as client:
        first = {key: ask(client, 1, X_Experiment_Key=f"user-{key}") for key in range(24)}
        again = {key: ask(client, 2, X_Experiment_Key=f"user-{key}") for key in range(24)}
        assert first == again
        counts = Counter(first.values())
        assert counts["optimised"] > counts["baseline"] > 0
        assert ask(client, 1, X_Experiment_Key="user-0", X_Model_Variant="baseline") == "baseline"
        without = Counter(ask(client, 1) for _ in range(20))
        assert set(without) == {"baseline", "optimised"}, "without a key the request's id decides"
        by_id = {ask(client, 1, X_Request_ID="retried") for _ in range(5)}
        assert len(by_id) == 1
        for key in range(6):
            assert infer(client, X_Experiment_Key=f"user-{key}") == first[key], "every protocol decides alike"
        state = shown(client)
        assert state["split"] == {
            "configured": {"baseline": pytest.approx(0.3), "optimised": pytest.approx(0.7)},
            "live": {"baseline": pytest.approx(0.3), "optimised": pytest.approx(0.7)},
            "default_variant": "optimised",
            "key_header": "X-Experiment-Key",
            "salt": "spring",
        }
        assert sum(variant["requests"]["chosen_by"]["split"] for variant in state["variants"].values()) == 79
        assert state["shadow"]["images"] == {"compared": 0, "dropped": 0, "failed": 0}
        assert state["guard"]["state"] == "off"
        contradicting = [("X-Experiment-Key", "one"), ("X-Experiment-Key", "two")]
        answer = client.post(CLASSIFY, content=picture(1), headers=contradicting)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
        assert server.stop() == 0
