"""What the Open Inference Protocol over HTTP tells of server and models, and what they have done."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.integration.oip.requests import MODEL, PATH, files, scores, tensor


def test_the_client_learns_everything_about_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(f"{MODEL}-baseline", "1")
    assert not client.is_model_ready(MODEL, "3")
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["name"] == "tessera"
    metadata = client.get_model_metadata(MODEL)
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 224, 224]}]
    assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 10]}]
    assert client.get_model_metadata(MODEL, "1")["platform"] == "onnxruntime_onnx"
    index = client.get_model_repository_index()
    assert {(entry["name"], entry["version"]) for entry in index} == {
        (MODEL, "1"),
        (MODEL, "2"),
        (f"{MODEL}-baseline", "1"),
        (f"{MODEL}-optimised", "2"),
    }
    assert {entry["state"] for entry in index} == {"READY"}


def test_the_configuration_has_what_perf_analyzer_reads(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config(MODEL)
    metadata = client.get_model_metadata(MODEL)
    assert config["max_batch_size"] == 16
    assert [entry["name"] for entry in config["input"]] == [entry["name"] for entry in metadata["inputs"]]
    assert [entry["dims"] for entry in config["input"]] == [entry["shape"][1:] for entry in metadata["inputs"]]
    assert [entry["dims"] for entry in config["output"]] == [entry["shape"][1:] for entry in metadata["outputs"]]
    assert (config["input"][0]["optional"], config["input"][0]["is_shape_tensor"]) == (False, False)
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert "dynamic_batching" in config
    assert not {"sequence_batching", "ensemble_scheduling", "response_cache"} & set(config)


def test_statistics_count_requests_images_and_batches(client: triton.InferenceServerClient) -> None:
    def read() -> dict[str, Any]:
        (entry,) = client.get_inference_statistics(MODEL, "1")["model_stats"]
        return entry

    before = read()
    for _ in range(3):
        scores(client, files(), "baseline")
    with pytest.raises(InferenceServerException):
        client.infer(f"{MODEL}-baseline", [tensor(np.zeros((1, 3), np.float32))])
    after = read()
    assert (after["name"], after["version"]) == (MODEL, "1")
    assert after["inference_count"] - before["inference_count"] == 9
    assert 3 <= after["execution_count"] - before["execution_count"] <= 9
    assert after["last_inference"] > 1.5e12
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert after["inference_stats"][stage]["count"] - before["inference_stats"][stage]["count"] == 3
        assert after["inference_stats"][stage]["ns"] > before["inference_stats"][stage]["ns"]
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert sum(row["compute_infer"]["count"] for row in after["batch_stats"]) == after["execution_count"]
    everything = client.get_inference_statistics()["model_stats"]
    assert len(everything) == 4
    assert after in everything


def test_probes_answer_what_the_protocol_says(http: httpx.Client) -> None:
    expected = {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        f"{PATH}/ready": {"name": MODEL, "ready": True},
        f"{PATH}-baseline/ready": {"name": f"{MODEL}-baseline", "ready": True},
        f"{PATH}/versions/2/ready": {"name": MODEL, "ready": True},
    }
    for path, body in expected.items():
        answer = http.get(path)
        assert (answer.status_code, answer.json()) == (200, body)
