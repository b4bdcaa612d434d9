"""A real Prometheus for tests, with the configuration of docker/."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.servers import REPOSITORY

DOCKER = REPOSITORY / "docker"
LISTENING = re.compile(r'msg="Listening on".* address=(\S+)')


class Prometheus:
    """A running Prometheus on a free port of the loopback interface; stopped by `stop`."""

    def __init__(self, folder: Path, target: str) -> None:
        configuration = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
        (scrape,) = configuration["scrape_configs"]
        (static,) = scrape["static_configs"]
        static["targets"] = [target]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        for name in configuration["rule_files"]:
            shutil.copy(DOCKER / name, folder / name)
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._listening = threading.Event()
        self._url = ""
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an API answer."""
        assert self._listening.wait(60), self.log[-20:]
        answer = httpx.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of an instant query."""
        return [(entry["metric"], float(entry["value"][1])) for entry in self.get("query", query=expression)["result"]]

    def wait_for(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The result of a query once it has one."""
        give_up = time.monotonic() + 90
        while time.monotonic() < give_up:
            if found := self.query(expression):
                return found
            time.sleep(0.25)
        raise AssertionError(f"{expression} stayed empty: {self.get('targets')}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if (found := LISTENING.search(line)) is not None:
                self._url = f"http://{found[1]}"
                self._listening.set()


def promtool(*arguments: str, text: str | None = None) -> None:
    """Run promtool, with `text` as its input; it must find no fault."""
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
