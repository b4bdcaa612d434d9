"""The page at /, in a real Chromium: what a visitor does, and that nothing leaves the origin."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import imagefiles
from tests.browsers import FLAGS, needs_chromium
from tests.integration.test_experiments import ask, right, start, wait_until, wrong
from tests.servers import NEVER, REPOSITORY, ServerProcess

WEB = REPOSITORY / "app" / "web"
PATIENCE = 60_000  # milliseconds, for what takes none
RATIO = re.compile(r"^\d+\.\d\u00d7")  # the sign of multiplication

SEEDS = count()  # of pictures
__all__ = ["right", "wrong"]  # fixtures


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    """The page of a running service; fails when it asks anybody else, or complains."""
    context = browser.new_context()
    opened = context.new_page()
    complaints: list[str] = []
    outside: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if "Security" in message.text else None)
    opened.on("request", lambda sent: None if sent.url.startswith((server.url, "blob:")) else outside.append(sent.url))
    opened.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    opened.goto(f"{server.url}/")
    yield opened
    assert complaints == []
    assert outside == []
    context.close()


def expect_answers(page: Page) -> None:
    expect(page.locator("#ratio")).to_have_text(RATIO)
    for variant in ("baseline", "optimised"):
        card = page.locator(f"#{variant}")
        expect(card.locator(".ranks li")).to_have_count(5)
        expect(card.locator(".legend li")).to_have_count(3)
    expect(page.locator("#error")).to_be_hidden()


@needs_chromium
@pytest.mark.parametrize("sample", ["golf ball", "parachute", "church"])
def test_a_sample_is_recognised_by_both_variants(page: Page, sample: str) -> None:
    page.get_by_role("button", name=sample).click()
    expect_answers(page)
    for variant in ("baseline", "optimised"):
        expect(page.locator(f"#{variant} .label").first).to_have_text(sample)
    expect(page.locator("#agreement")).to_contain_text("They agree")


@needs_chromium
def test_a_chosen_file_is_shown_answered_and_named_in_the_commands(page: Page) -> None:
    page.set_input_files("#file", {"name": "my photo.jpg", "mimeType": "image/jpeg", "buffer": imagefiles.jpeg()})
    expect_answers(page)
    expect(page.locator("#preview")).to_be_visible()
    expect(page.locator("#snippet")).to_contain_text("@'my photo.jpg'")
    page.get_by_role("tab", name="Python").click()
    expect(page.locator("#snippet")).to_contain_text('open("my photo.jpg", "rb")')


@needs_chromium
@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted(page: Page, how: str) -> None:
    event = {"drop": ("DragEvent", "dataTransfer"), "paste": ("ClipboardEvent", "clipboardData")}[how]
    page.evaluate(
        """([how, [kind, field], encoded]) => {
            const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "photo.png", { type: "image/png" }));
            const Kind = { DragEvent, ClipboardEvent }[kind];
            document.dispatchEvent(new Kind(how, { [field]: data, cancelable: true }));
        }""",
        [how, event, base64.b64encode(imagefiles.png()).decode()],
    )
    expect_answers(page)


@needs_chromium
def test_the_camera_takes_a_photo_and_is_switched_off_again(page: Page) -> None:
    page.context.grant_permissions(["camera"])
    page.get_by_role("button", name="Camera").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take the photo").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect_answers(page)
    expect(page.locator("#snippet")).to_contain_text("camera.jpg")
    assert page.evaluate("document.querySelector('video').srcObject") is None


@needs_chromium
def test_without_a_camera_the_page_says_so(page: Page) -> None:
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#error")).to_contain_text("no camera that this page may use")
    page.get_by_role("button", name="church").click()
    expect_answers(page)


def draws(page: Page, variant: str) -> list[list[float]]:
    """What a card's map hides of the photo at the centres of its 7 x 7 places; negative where it is blue."""
    drawn: list[list[float]] = page.locator(f"#{variant} canvas").evaluate(
        """(canvas) => [...Array(7).keys()].map((y) => [...Array(7).keys()].map((x) => {
            const [red, , blue, alpha] = canvas.getContext("2d").getImageData(32 * x + 16, 32 * y + 16, 1, 1).data;
            return red >= blue ? alpha : -alpha;
        }))"""
    )
    return drawn


@needs_chromium
@pytest.mark.parametrize("orientation", [1, 6])
def test_why_lays_the_map_over_what_the_network_sees(page: Page, orientation: int) -> None:
    photo = imagefiles.rotated_jpeg(orientation)  # 320 x 240 when it is upright
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo})
    expect_answers(page)
    for variant in ("baseline", "optimised"):
        card = page.locator(f"#{variant}")
        card.get_by_role("button", name="Why?").focus()
        page.keyboard.press("Enter")
        expect(card.locator("canvas")).to_be_visible()
        expect(card.locator("option")).to_have_count(5)
        page.wait_for_function("(canvas) => canvas.style.left", arg=card.locator("canvas").element_handle())
        image, square = card.locator(".seen img").bounding_box(), card.locator("canvas").bounding_box()
        assert image is not None
        assert square is not None
        assert image["width"] / image["height"] == pytest.approx(320 / 240, rel=0.02)
        assert square["height"] == pytest.approx(image["height"] * 224 / 256, abs=1)
        assert square["width"] == pytest.approx(square["height"], abs=1)
        for side, length in (("x", "width"), ("y", "height")):
            assert square[side] - image[side] == pytest.approx((image[length] - square[length]) / 2, abs=1)
        sent = {"X-Model-Variant": variant, "Content-Type": "image/jpeg"}
        asked = page.request.post(f"{page.url}v1/classify?explain=1", data=photo, headers=sent).json()["results"][0][
            "predictions"
        ]
        largest = max(abs(value) for label in asked for value in label["heat_map"]["values"])
        for label in (asked[0], asked[3]):
            card.get_by_label("What speaks for").select_option(label["label"])
            expect(card.locator(".caption")).to_contain_text(f"speaks for {label['label']}")
            expect(card.locator(".caption")).to_contain_text(f"score: {label['heat_map']['logit']:.2f}")
            expected = [0.75 * 255 * value / largest for value in label["heat_map"]["values"]]
            assert [value for row in draws(page, variant) for value in row] == pytest.approx(expected, abs=6)
        expect(card.get_by_role("button", name="Why?")).to_be_focused()
        page.keyboard.press("Enter")
        expect(card.locator("canvas")).to_be_hidden()


@needs_chromium
def test_a_photo_that_the_browser_does_not_show_has_its_map_alone(page: Page) -> None:
    page.set_input_files("#file", {"name": "a.tif", "mimeType": "image/tiff", "buffer": imagefiles.KINDS["tiff"]()})
    expect_answers(page)
    page.locator("#optimised").get_by_role("button", name="Why?").click()
    expect(page.locator("#optimised canvas")).to_be_visible()
    expect(page.locator("#optimised .seen img")).to_have_count(0)
    shape = page.locator("#optimised canvas").bounding_box()
    assert shape is not None
    assert shape["width"] == pytest.approx(shape["height"], abs=1)


@needs_chromium
def test_a_wrong_file_is_answered_with_the_services_own_sentence_and_the_next_photo_works(page: Page) -> None:
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not an image"})
    expect(page.locator("#error")).to_contain_text("not an image of any of these formats")
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="church").click()
    expect_answers(page)


@needs_chromium
def test_measuring_properly_says_medians_and_spread(page: Page) -> None:
    page.get_by_role("button", name="golf ball").click()
    expect_answers(page)
    page.get_by_role("button", name="Measure properly").click()
    expect(page.locator("#measured")).to_contain_text("Medians of 10 runs")
    expect(page.locator("#measured")).to_contain_text("half of the runs")
    expect(page.get_by_role("button", name="Measure properly")).to_be_enabled()


@needs_chromium
def test_the_page_says_what_the_experiment_says(page: Page) -> None:
    expect(page.locator("#experiment")).to_contain_text("optimised 100.0 %")
    expect(page.locator("#model")).to_contain_text("resnet50-imagenette")


@needs_chromium
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.get_by_role("button", name="golf ball").click()
    expect_answers(page)
    page.locator("#optimised").get_by_role("button", name="Why?").click()
    expect(page.locator("#optimised canvas")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@needs_chromium
def test_a_service_that_is_gone_is_named_in_a_sentence(browser: Browser) -> None:
    with ServerProcess() as server:
        opened = browser.new_page()
        opened.goto(f"{server.url}/")
        opened.wait_for_load_state("networkidle")
        server.stop()
        opened.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": imagefiles.jpeg()})
        expect(opened.locator("#error")).to_contain_text("does not answer", timeout=PATIENCE)
        opened.close()


def test_an_unchanged_page_is_not_sent_again(server: ServerProcess) -> None:
    with server.client() as client:
        first = client.get("/")
        assert first.headers["content-security-policy"].startswith("default-src 'self'")
        again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get("/", headers={"If-None-Match": '"other"'}).content == first.content
        assert client.get("/page/nothing.js").status_code == 404
        assert client.get("/page/..%2f..%2fmain.py").status_code == 404


@pytest.mark.effect_of("page")
def test_without_the_page_there_is_nothing_at_its_path() -> None:
    with ServerProcess(page=False) as server, server.client() as client:
        assert client.get("/").status_code == 404
        assert client.get("/page/page.js").status_code == 404
        assert client.get("/healthz").status_code == 200


def test_all_of_it_is_small() -> None:
    import gzip

    texts = [file for file in (WEB / "built").iterdir() if file.suffix in (".html", ".js", ".css")]
    assert len(texts) == 3
    assert sum(len(gzip.compress(file.read_bytes())) for file in texts) < 80_000


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with what builds and checks them."""
    if shutil.which("npm") is None:
        pytest.skip("the program npm is not installed")
    folder = tmp_path_factory.mktemp("web")
    for name in ("src", "package.json", "package-lock.json", "tsconfig.json"):
        source = WEB / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "built").mkdir()
    run(["npm", "ci", "--silent"], folder)
    return folder


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_committed_is_what_the_sources_build(tools: Path) -> None:
    run(["npm", "run", "--silent", "build"], tools)
    for folder in ("built", "report"):
        built = {file.name: file.read_bytes() for file in (tools / folder).iterdir()}
        assert built == {file.name: file.read_bytes() for file in (WEB / folder).iterdir()}


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, server: ServerProcess, tools: Path, scheme: str) -> None:
    context = browser.new_context(bypass_csp=True, color_scheme="dark" if scheme == "dark" else "light")
    opened = context.new_page()
    opened.goto(f"{server.url}/")
    opened.get_by_role("button", name="golf ball").click()
    expect_answers(opened)
    opened.locator("#optimised").get_by_role("button", name="Why?").click()
    expect(opened.locator("#optimised canvas")).to_be_visible()
    assert serious_findings(opened, tools) == []
    context.close()


def serious_findings(opened: Page, tools: Path) -> list[tuple[str, list[str]]]:
    opened.add_script_tag(path=tools / "node_modules" / "axe-core" / "axe.min.js")
    found = opened.evaluate("axe.run()")["violations"]
    serious = [finding for finding in found if finding["impact"] in ("serious", "critical")]
    return [(finding["id"], [node["html"] for node in finding["nodes"]]) for finding in serious]


@needs_chromium
def test_while_the_model_loads_the_page_says_so_and_then_works(browser: Browser) -> None:
    with ServerProcess(wait=False) as server:
        opened = browser.new_page()
        opened.goto(f"{server.url}/")
        opened.get_by_role("button", name="church").click()
        expect(opened.locator("#error")).to_contain_text("not ready", timeout=PATIENCE)
        server.wait_until_ready()
        opened.get_by_role("button", name="church").click()
        expect_answers(opened)
        opened.close()


@needs_chromium
def test_it_works_with_frontends(browser: Browser) -> None:
    with ServerProcess(frontends=2) as server:
        opened = browser.new_page()
        opened.goto(f"{server.url}/")
        opened.get_by_role("button", name="parachute").click()
        expect_answers(opened)
        opened.locator("#optimised").get_by_role("button", name="Why?").click()
        expect(opened.locator("#optimised .caption")).to_contain_text("speaks for parachute")
        expect(opened.locator("#experiment")).to_contain_text("optimised 100.0 %")
        opened.close()


@needs_chromium
def test_the_layers_come_by_themselves_once_the_service_is_idle(
    browser: Browser, small_model: Path, tmp_path: Path, tools: Path
) -> None:
    with ServerProcess(model_path=small_model, cache_dir=tmp_path) as server:
        context = browser.new_context(bypass_csp=True)
        opened = context.new_page()
        opened.goto(f"{server.url}/")
        layers = opened.locator("#profile")
        expect(layers).to_contain_text("Not measured yet")
        expect(layers.get_by_role("row", name="Latency, batch 16")).to_contain_text(
            "18.2 → 7.5 ms", timeout=NEVER * 1000
        )
        convolutions = layers.locator("details tbody tr").count()
        for view, shape in (("Time", "g"), ("Share of peak", "g"), ("Roofline", "circle")):
            layers.get_by_role("tab", name=view).click()
            count = convolutions if shape == "g" else 2 * convolutions
            expect(layers.locator(f".view svg {shape}")).to_have_count(count)
        layers.get_by_role("tab", name="By class").click()
        expect(layers.locator(".view svg")).to_contain_text("3x3@56")
        assert serious_findings(opened, tools) == []
        context.close()


@needs_chromium
def test_while_the_guard_has_tripped_the_page_says_why(browser: Browser, wrong: Path) -> None:
    with start(wrong, shadow_share=1, guard_agreement=0.8) as server, server.client() as client:
        wait_until(client, lambda _: ask(client, next(SEEDS)) == "baseline")
        opened = browser.new_page()
        opened.goto(f"{server.url}/")
        expect(opened.locator("#experiment")).to_contain_text("tripped: ", timeout=PATIENCE)
        expect(opened.locator("#experiment")).to_contain_text("compared images got the same top label")
        expect(opened.locator("#experiment")).to_contain_text("baseline 100.0 %, optimised 0.0 %")
        opened.get_by_role("button", name="golf ball").click()
        expect_answers(opened)  # of both, because a choice by name is kept
        opened.close()


@needs_chromium
def test_live_figures_come_and_come_again_after_a_restart(browser: Browser) -> None:
    with ServerProcess() as server:
        opened = browser.new_page()
        opened.goto(f"{server.url}/")
        expect(opened.locator("#now")).to_contain_text("Queue", timeout=PATIENCE)
        expect(opened.locator("#charts canvas")).to_have_count(4)
        assert server.stop() == 0
    expect(opened.locator("#now")).to_contain_text("does not answer", timeout=PATIENCE)
    with ServerProcess("--port", server.url.rpartition(":")[2]):
        expect(opened.locator("#now")).to_contain_text("Queue", timeout=PATIENCE)
    opened.close()
