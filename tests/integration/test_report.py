"""`tessera report`: one file that shows everything, asks nobody, and says the same as its JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests import imagefiles
from tests.browsers import FLAGS, needs_chromium
from tests.servers import REPOSITORY, tessera
from tests.small_model import small_folder
from tests.unit.models.tiny import LABELS


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A report of a small model, with labelled photos; the file and its document."""
    folder = tmp_path_factory.mktemp("report")
    model = small_folder(folder / "small")
    for label in LABELS:
        (folder / "photos" / label).mkdir(parents=True)
        (folder / "photos" / label / "photo.png").write_bytes(imagefiles.png())
    page, figures = folder / "report.html", folder / "report.json"
    flags = ("--rounds", "6", "--photos", folder / "photos", "--model-path", model, "-o", page, "--json", figures)
    done = tessera("report", *map(str, flags))
    assert done.returncode == 0, done.stderr
    assert str(page) in done.stdout
    return page, json.loads(figures.read_text())


@pytest.fixture(scope="module")
def opened(report: tuple[Path, dict[str, object]]) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        context = browser.new_context(offline=True)
        page = context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(report[0].as_uri())
        yield page
        assert asked == [report[0].as_uri()]
        assert complaints == []
        browser.close()


def test_the_document_is_of_the_committed_schema(report: tuple[Path, dict[str, object]]) -> None:
    schema = json.loads((REPOSITORY / "docs" / "schemas" / "report.schema.json").read_text())
    jsonschema_rs.validate(schema, report[1])


def test_the_file_is_small_and_needs_no_other(report: tuple[Path, dict[str, object]]) -> None:
    text = report[0].read_text()
    assert len(text) < 500_000
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("</script>") == 2, "nothing that is embedded ends its element"


@needs_chromium
def test_it_shows_what_the_document_says(opened: Page, report: tuple[Path, dict[str, object]]) -> None:
    document: dict[str, object] = report[1]
    latency = opened.get_by_role("row", name="Latency, batch 16")
    expect(latency).to_contain_text("18.2 → 7.5 ms")
    speed = document["speed"]
    assert isinstance(speed, dict)
    engines = list(speed["variants"])
    assert engines[:2] == ["baseline", "optimised"]
    for batch in (1, 16):
        rows = opened.get_by_role("region", name=f"Engines at batch {batch}", exact=True).locator("tbody tr")
        expect(rows).to_have_count(len(engines))
    counted = opened.get_by_role("region", name="Accuracy of the variants")
    expect(counted).to_contain_text(f"{len(LABELS)} photos")
    expect(counted).to_contain_text("20.00 %")  # one of five labels, for five photos alike
    expect(opened.get_by_role("row", name="Top-5 accuracy")).to_contain_text("100.00 %")
    expect(opened.locator("pre")).to_have_text(str(document["command"]))


@needs_chromium
@pytest.mark.parametrize("view", ["Time", "Share of peak", "By class", "Roofline"])
def test_every_view_is_drawn(opened: Page, view: str) -> None:
    opened.get_by_role("tab", name=view).click()
    drawn = opened.locator(".view svg circle, .view svg rect")
    assert drawn.count() > 10
    boxes = drawn.evaluate_all("shapes => shapes.map((shape) => Object.values(shape.getBBox()).every(Number.isFinite))")
    assert all(boxes)


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    done = tessera("report", "-o", str(tmp_path / "missing" / "report.html"))
    assert done.returncode == 1
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr
