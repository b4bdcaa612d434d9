"""What the page costs those who look at it, and what they cost the service.

    .venv/bin/python -m benchmarks.page viewers
    .venv/bin/python -m benchmarks.page paint

`viewers` lets two clients in a process of their own send one photo without pause, in rounds with and without viewers of
`GET /v1/live` in turns, so that a slower moment of the machine hits both. `paint` has Chromium load the page from the
same machine, each time with an empty cache, and asks it when it first painted; it needs `chromium` and playwright.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.processes import load
from tests.servers import REPOSITORY, ServerProcess

_PHOTO = REPOSITORY / "app" / "web" / "src" / "static" / "church.jpg"
_CLIENTS = 2
_VIEWER = """
import http.client, sys, threading
host, port, viewers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def look():
    connection = http.client.HTTPConnection(host, port)
    connection.request("GET", "/v1/live")
    answer = connection.getresponse()
    while answer.readline():
        pass

threads = [threading.Thread(target=look) for _ in range(viewers)]
[thread.start() for thread in threads]
print("looking", flush=True)
"""


def viewers(rounds: int, seconds: float, count: int) -> None:
    """Print images per second and latencies with and without viewers."""
    results: dict[int, list[list[float]]] = {0: [], count: []}
    with ServerProcess() as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        load(server, _PHOTO, _CLIENTS, 2.0)
        for number in range(rounds):
            for here in (0, count) if number % 2 == 0 else (count, 0):
                with _watching(host, port, here):
                    results[here].append(load(server, _PHOTO, _CLIENTS, seconds))
    for here, measured in results.items():
        rate, p50, p99 = (median(row[column] for row in measured) for column in range(3))
        failed = int(sum(row[3] for row in measured))
        print(
            f"{here} viewers: {rate:6.1f} images/s, p50 {p50 * 1e3:6.2f} ms, p99 {p99 * 1e3:6.2f} ms, {failed} failed"
        )
    ratios = sorted(with_viewers[2] / without[2] for without, with_viewers in zip(*results.values(), strict=True))
    print(f"p99 with over without, by rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


@contextmanager
def _watching(host: str, port: str, count: int) -> Iterator[None]:
    if count == 0:
        yield
        return
    looking = subprocess.Popen([sys.executable, "-c", _VIEWER, host, port, str(count)], stdout=subprocess.PIPE)
    assert looking.stdout is not None
    looking.stdout.readline()
    try:
        yield
    finally:
        looking.kill()
        looking.wait()
        looking.stdout.close()


def paint(runs: int) -> None:
    """Print when Chromium first painted the page."""
    from playwright.sync_api import sync_playwright

    times = []
    with ServerProcess() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(runs):
            context = browser.new_context()  # with a cache of its own
            page = context.new_page()
            page.goto(server.url)
            page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
            times.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            context.close()
        browser.close()
    print(f"first paint: median {median(times):.0f} ms, {min(times):.0f} to {max(times):.0f} ms in {runs} loads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    watch = verbs.add_parser("viewers")
    watch.add_argument("--rounds", type=int, default=10, help="of each kind")
    watch.add_argument("--seconds", type=float, default=10.0, help="of a round")
    watch.add_argument("--viewers", type=int, default=3)
    page = verbs.add_parser("paint")
    page.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.verb == "viewers":
        viewers(arguments.rounds, arguments.seconds, arguments.viewers)
    else:
        paint(arguments.runs)


if __name__ == "__main__":
    main()
