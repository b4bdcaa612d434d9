"""What `bench --json` and `profile --json` write: documents of the committed schemas, from real runs."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, median

import jsonschema_rs
import pytest

from tessera.app.figures.documents import BenchDocument, Document, ProfileDocument, ReportDocument, schema
from tests.servers import REPOSITORY, tessera
from tests.small_model import small_folder

KINDS: dict[str, type[Document]] = {"bench": BenchDocument, "profile": ProfileDocument, "report": ReportDocument}


def committed(kind: str) -> str:
    return (REPOSITORY / "docs" / "schemas" / f"{kind}.schema.json").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_schema_is_that_of_the_document(kind: str) -> None:
    assert committed(kind) == schema(KINDS[kind]), "write it anew with tessera.app.figures.documents.schema"


@pytest.mark.parametrize(("kind", "counting"), [("bench", "--rounds"), ("profile", "--runs")])
def test_a_run_writes_a_document_of_its_schema(kind: str, counting: str, tmp_path: Path) -> None:
    folder, target = small_folder(tmp_path / "small"), tmp_path / "figures.json"
    done = tessera(kind, counting, "3", "--model-path", str(folder), "--json", str(target))
    assert done.returncode == 0, done.stderr
    document = json.loads(target.read_text())
    jsonschema_rs.validate(json.loads(committed(kind)), document)
    assert set(document["variants"]) == {"baseline", "optimised"}
    if kind == "bench":
        assert [(row["variant"], row["batch"]) for row in document["measurements"]] == [
            (variant, batch) for batch in (1, 16) for variant in ("baseline", "optimised")
        ]
        for row in document["measurements"]:
            assert len(row["seconds"]) == 3
            assert row["milliseconds"] == pytest.approx(median(row["seconds"]) * 1e3)
            assert row["mean_milliseconds"] == pytest.approx(fmean(row["seconds"]) * 1e3)
            assert row["stages"] == {}
    else:
        assert all(layers for layers in document["layers"].values())
        assert any(layer["macs"] for layer in document["layers"]["optimised"])


def test_a_trace_is_what_perfetto_opens(tmp_path: Path) -> None:
    """By Chrome's description: every event says where it belongs, and complete ones say when in microseconds."""
    folder, target = small_folder(tmp_path / "small"), tmp_path / "trace.json"
    done = tessera("profile", "--runs", "1", "--model-path", str(folder), "--trace", str(target), "--threads", "2")
    assert done.returncode == 0, done.stderr
    document = json.loads(target.read_text())
    assert document["otherData"]["batch"] == 16
    names = {
        event["pid"]: event["args"]["name"] for event in document["traceEvents"] if event["name"] == "process_name"
    }
    assert sorted(names.values()) == ["baseline", "optimised"]
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert all(event["ts"] >= 0 and event["dur"] >= 0 and event["name"] for event in slices)
    assert {(names[event["pid"]], event["tid"]) for event in slices} == {
        ("baseline", 0),
        ("optimised", 0),
        ("optimised", 1),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_cannot_be_written_is_told_before_anything_runs(kind: str, tmp_path: Path) -> None:
    done = tessera(kind, "--json", str(tmp_path / "missing" / "figures.json"))
    assert done.returncode != 0
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr
