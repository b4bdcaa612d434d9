"""Load on a running Tessera: both variants by header, photos of several sizes, steady or in bursts.

    locust -f locust/locustfile.py --headless -u 16 -r 16 -t 60s --host http://127.0.0.1:8000 --load-profile bursty

An answer of the wrong shape, or from another variant than the one asked for, counts as a failure. A refusal under
overload (503 with Retry-After) is what the service promises, so it is no failure; it has its own row in the report.
This folder must not become a Python package: it would hide the locust library from whoever starts it here.
"""

from __future__ import annotations

import io
import os
import random
import sys
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from PIL import Image

from locust import FastHttpUser, LoadTestShape, events, task

VARIANTS = ("baseline", "optimised")
SIZES = {"small": (200, 150), "medium": (640, 480), "large": (1920, 1440)}
TOP_K = 3
CALM_SECONDS, BURST_SECONDS = 3.0, 2.0
CALM_SHARE = 0.25  # of the users, between bursts
MOST_PHOTOS = 200
LONGEST_PAUSE = 5.0

# Row name -> files to choose from; filled once, before the first user starts.
pictures: dict[str, list[bytes]] = {}


@events.init_command_line_parser.add_listener
def add_arguments(parser: LocustArgumentParser) -> None:
    """Describe our own options."""
    parser.add_argument(
        "--load-profile",
        choices=["constant", "bursty"],
        default="constant",
        env_var="TESSERA_LOCUST_LOAD_PROFILE",
        help=f"constant: all users all the time; bursty: a quarter of them for {CALM_SECONDS:g} s, all for "
        f"{BURST_SECONDS:g} s, and so on",
    )
    parser.add_argument(
        "--images",
        default="",
        env_var="TESSERA_LOCUST_IMAGES",
        help="folder of photos to send; without it: generated pictures, small, medium and large",
    )


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Make or read the pictures, and let users who leave at the end of a burst finish their request first."""
    options = environment.parsed_options
    pictures.update(read_photos(Path(options.images)) if options.images else draw_pictures())
    if not options.stop_timeout:
        environment.stop_timeout = 30.0


def draw_pictures() -> dict[str, list[bytes]]:
    """JPEG files by size, a few of each."""
    return {size: [draw(width, height, seed) for seed in range(3)] for size, (width, height) in SIZES.items()}


def draw(width: int, height: int, seed: int) -> bytes:
    """One JPEG: coarse random colours, smoothly enlarged, so that its file is about as large as a photo's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def read_photos(folder: Path) -> dict[str, list[bytes]]:
    """The photos of a folder and its subfolders, at most `MOST_PHOTOS`; ends the program when there are none."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    if not files:
        sys.exit(f"There are no photos in {folder}; set --images (TESSERA_LOCUST_IMAGES) to a folder that has some.")
    step = -(-len(files) // MOST_PHOTOS)
    return {"photo": [file.read_bytes() for file in files[::step]]}


class Photographer(FastHttpUser):
    """Sends one picture at a time, to one variant or the other, with hardly a pause."""

    host = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")

    def wait_time(self) -> float:
        """Seconds until the next request."""
        return random.uniform(0.0, 0.1)

    @task
    def classify(self) -> None:
        """Send a picture and check the answer."""
        variant, size = random.choice(VARIANTS), random.choice(list(pictures))
        pause = 0.0
        with self.client.post(
            f"/v1/classify?top_k={TOP_K}",
            data=random.choice(pictures[size]),
            headers={"X-Model-Variant": variant, "Content-Type": "image/jpeg"},
            name=f"classify {variant} {size}",
            catch_response=True,
        ) as response:
            retry_after = response.headers.get("Retry-After") if response.headers else None
            if response.status_code == 503 and retry_after is not None:
                response.request_meta["name"] = f"refused {variant}"
                response.success()
                pause = min(float(retry_after), LONGEST_PAUSE)
            elif problem := find_problem(response, variant):
                response.failure(problem)
        gevent.sleep(pause)


def find_problem(response: Any, variant: str) -> str:
    """What is wrong with an answer; empty when it is as the contract says."""
    if response.status_code != 200:
        return f"status {response.status_code}: {(response.text or '')[:200]}"
    try:
        answer = response.json()
        (result,) = answer["results"]
        predictions, timing = result["predictions"], result["timing"]
        answered = {answer["variant"], response.headers["X-Model-Variant"]}
        ranks = [prediction["rank"] for prediction in predictions]
        likelihoods = [prediction["probability"] for prediction in predictions]
        labels = {prediction["label"] for prediction in predictions}
        batch_size = timing["batch_size"]
    except (ValueError, KeyError, TypeError) as error:
        return f"not the answer's shape: {error!r}"
    if answered != {variant}:
        return f"asked {variant}, answered by {sorted(answered)}"
    if ranks != list(range(1, TOP_K + 1)) or len(labels) != TOP_K:
        return f"not {TOP_K} different labels in order: {predictions}"
    if likelihoods != sorted(likelihoods, reverse=True) or not 0 < sum(likelihoods) <= 1.001:
        return f"not probabilities in falling order: {likelihoods}"
    if not 1 <= batch_size <= 16:
        return f"a batch of {batch_size}"
    return ""


class Profile(LoadTestShape):
    """How many users there are at any time: `--users`, all the time or in bursts, until `--run-time` is over."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now, and how many to start or stop per second; None ends the run."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        if options.run_time and self.get_run_time() >= options.run_time:
            return None  # Locust leaves the end to the shape
        users, rate = options.num_users or 1, options.spawn_rate or 1.0
        if options.load_profile == "constant":
            return users, rate
        calm = self.get_run_time() % (CALM_SECONDS + BURST_SECONDS) < CALM_SECONDS
        return max(1, round(users * CALM_SHARE)) if calm else users, max(rate, float(users))
