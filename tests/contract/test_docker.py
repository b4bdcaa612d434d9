"""What can be known of the image without a container engine: the files agree with each other and with the program."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tessera.app.settings import Settings
from tests.servers import REPOSITORY, ServerProcess, environment

HEALTH_CHECK = REPOSITORY / "docker" / "healthcheck.py"
PINNED = re.compile(r"[\w./-]+:v?\d[\w.-]*")


class Instruction(NamedTuple):
    word: str
    text: str


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions, continuation lines joined, comments left out."""
    lines = [line for line in (REPOSITORY / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def last_stage() -> list[Instruction]:
    found = instructions()
    start = max(index for index, instruction in enumerate(found) if instruction.word == "FROM")
    return found[start:]


def arguments(word: str) -> list[str]:
    return [instruction.text for instruction in last_stage() if instruction.word == word]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for text in arguments("ENV") for pair in shlex.split(text))


def compose() -> dict[str, Any]:
    parsed = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())
    assert isinstance(parsed, dict)
    return parsed


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build context: the last line for it or a parent decides."""
    parents = ["/".join(path.split("/")[: depth + 1]) for depth in range(path.count("/") + 1)]
    kept_out = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        names = [name.rpartition("/")[2] for name in parents] if pattern.startswith("**/") else parents
        if any(fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            kept_out = not line.startswith("!")
    return kept_out


def copied() -> list[str]:
    """Every source in the build context that some stage copies."""
    sources = []
    for instruction in instructions():
        if instruction.word in ("COPY", "ADD") and "--from=" not in instruction.text:
            *names, _ = [part for part in instruction.text.split() if not part.startswith("--")]
            sources += names
    return sources


@pytest.mark.parametrize("source", copied())
def test_every_copied_file_exists_and_reaches_the_build(source: str) -> None:
    path = REPOSITORY / source
    assert path.exists()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    wanted = [file for file in files if "__pycache__" not in file.parts and file.suffix not in (".pyc", ".so")]
    assert wanted
    assert [file for file in wanted if ignored(file.relative_to(REPOSITORY).as_posix())] == []


@pytest.mark.parametrize(
    "path",
    ["engine/_native.cpython-311-x86_64-linux-gnu.so", "app/__pycache__/cli.pyc", ".git/config", ".venv/bin/python"],
)
def test_what_a_working_tree_leaves_behind_stays_outside(path: str) -> None:
    assert ignored(path)


def test_the_build_has_everything_that_the_package_is_made_of() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    packages = re.search(r"wheel\.packages = (\[.*?\])", project)
    readme = re.search(r'^readme = "(.*?)"', project, re.MULTILINE)
    assert packages is not None
    assert readme is not None
    assert {
        *json.loads(packages[1]),
        readme[1],
        "LICENSE",
        "app",
        "engine",
        "models",
        "pyproject.toml",
        "CMakeLists.txt",
    } <= set(copied())


def test_the_container_does_not_run_as_root() -> None:
    (user,) = arguments("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "numeric, so that an orchestrator can check it"
    words = [instruction.word for instruction in last_stage()]
    assert "RUN" not in words[words.index("USER") :]
    assert "COPY" not in words[words.index("USER") :], "its files belong to root: the service cannot change them"


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_the_process_gets_signals_itself(word: str) -> None:
    (text,) = arguments(word)
    assert isinstance(json.loads(text), list), "exec form, so that no shell stands before the service"


def test_it_starts_a_command_that_exists_and_stops_in_time() -> None:
    command = json.loads(arguments("ENTRYPOINT")[0]) + json.loads(arguments("CMD")[0])
    assert command == ["tessera", "serve"]
    assert 'tessera = "tessera.app.cli:main"' in (REPOSITORY / "pyproject.toml").read_text()
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert float(variables()["TESSERA_DRAIN_SECONDS"]) < 10, "docker stop kills after 10 s"


def test_its_environment_holds_valid_settings() -> None:
    named = {name: value for name, value in variables().items() if name.startswith("TESSERA_")}
    assert {name.removeprefix("TESSERA_").lower() for name in named} <= set(Settings.model_fields)
    settings = Settings(**{name.removeprefix("TESSERA_").lower(): value for name, value in named.items()})
    assert settings.host == "0.0.0.0"
    assert arguments("EXPOSE") == [str(settings.port)]
    assert any(f"--cache-dir {settings.cache_dir}" in text for text in arguments("RUN")), "the model is built there"


def test_the_cache_is_a_volume_that_the_services_user_may_write_to() -> None:
    cache = variables()["TESSERA_CACHE_DIR"]
    assert arguments("VOLUME") == [cache], "writable also with --read-only"
    (user,) = arguments("USER")
    (made,) = [text for text in arguments("RUN") if "tessera models build" in text]
    # In one layer, or the image would hold the graphs twice; and before VOLUME, after which changes are lost.
    assert made.index("models build") < made.index(f"chown -R {user} {cache}")
    words = [instruction.word for instruction in last_stage()]
    assert words.index("RUN") < words.index("VOLUME")
    assert "RUN" not in words[words.index("VOLUME") :]


def test_compose_serves_a_mounted_model_and_keeps_what_is_built_of_it() -> None:
    service = compose()["services"]["tessera"]
    model, cache = service["volumes"]
    assert model["target"] == service["environment"]["TESSERA_MODEL_PATH"]
    assert "${MODEL:-" in model["source"]
    volume, place = cache.split(":")
    assert volume in compose()["volumes"]
    assert place == variables()["TESSERA_CACHE_DIR"]


def test_the_health_check_runs_a_file_of_the_image() -> None:
    (text,) = arguments("HEALTHCHECK")
    command = json.loads(text.partition("CMD")[2])
    assert f"docker/healthcheck.py {command[-1]}" in arguments("COPY")


def test_the_port_is_left_to_the_platform() -> None:
    assert "TESSERA_PORT" not in variables(), "it would go before the platform's PORT"


def test_the_labels_say_the_version_and_the_licence_of_the_project() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    text = (REPOSITORY / "Dockerfile").read_text()
    for name in ("version", "license", "description"):
        (value,) = re.findall(rf'^{name} = "(.*)"', project, re.MULTILINE)
        if name == "version":
            assert re.findall(r"^ARG VERSION=(.*)$", text, re.MULTILINE) == [value]
        else:
            label = {"license": "licenses"}.get(name, name)
            assert set(re.findall(rf'org\.opencontainers\.image\.{label}="(.*)"', text)) == {value}


def test_the_image_lists_its_packages_where_the_documentation_says() -> None:
    (made,) = [text for text in arguments("RUN") if "cyclonedx-py environment" in text]
    (place,) = re.findall(r"--output-file (\S+)", made)
    assert place in (REPOSITORY / "docs" / "operating.md").read_text()
    installed = [text for text in arguments("RUN") if "pip install" in text]
    assert len(installed) == 1
    runs = arguments("RUN")
    assert runs.index(installed[0]) < runs.index(made), "of what is installed"


@pytest.mark.parametrize("stage", ["builder", "ascend-builder"])
def test_the_image_speaks_grpc(stage: str) -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    (built,) = re.findall(rf" AS {stage}\n.*?pip wheel .*? '\.\[(\w+)\]'\n", text, re.DOTALL)
    assert built == "grpc"
    installed = re.findall(
        rf"from={stage},source=/wheels,target=/wheels .*? '?tessera-inference(\S*?)'?\n", text, re.DOTALL
    )
    assert installed == ["[grpc]"]


def check_health(port: str, *arguments: str, variable: str = "TESSERA_PORT") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEALTH_CHECK), *arguments],
        env=environment(**{variable: port}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def port(server: ServerProcess) -> str:
    return server.url.rpartition(":")[2]


def test_the_health_check_passes_on_a_running_server(port: str) -> None:
    assert check_health(port).returncode == 0
    assert check_health(port, "/readyz").returncode == 0
    assert check_health(port, variable="PORT").returncode == 0


def test_the_health_check_fails_with_a_sentence_on_any_other_answer(port: str) -> None:
    check = check_health(port, "/nothing-here")
    assert check.returncode == 1
    assert "/nothing-here" in check.stderr
    assert "404" in check.stderr


def test_the_health_check_fails_with_a_sentence_where_nobody_listens() -> None:
    check = check_health("9")
    assert check.returncode == 1
    assert "did not answer" in check.stderr
    assert "Traceback" not in check.stderr


@pytest.mark.parametrize("name", sorted(compose()["services"]))
def test_each_service_is_confined(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(published.startswith("127.0.0.1:") for published in service["ports"])
    assert "build" in service or PINNED.fullmatch(service["image"])


def test_mounted_files_exist_and_named_volumes_are_declared() -> None:
    declared = compose()["volumes"]
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            if not isinstance(volume, str):
                assert (REPOSITORY / "docker" / re.sub(r"\$\{\w+:-(.*)\}", r"\1", volume["source"])).is_dir()
                assert volume["read_only"] is True
                continue
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (REPOSITORY / "docker" / source).is_file()
                assert volume.endswith(":ro")
            else:
                assert source in declared


def test_prometheus_scrapes_the_service_by_its_name_and_port_and_loads_what_is_mounted() -> None:
    services = compose()["services"]
    scraping = yaml.safe_load((REPOSITORY / "docker" / "prometheus.yml").read_text())
    (job,) = scraping["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"tessera:{Settings.model_fields['port'].default}"]}]
    mounted = {Path(volume.split(":")[0]).name for volume in services["prometheus"]["volumes"]}
    assert {"prometheus.yml", *scraping["rule_files"]} <= mounted
    assert services["prometheus"]["depends_on"] == {"tessera": {"condition": "service_healthy"}}


def test_compose_builds_this_repository_and_gives_the_drain_its_time() -> None:
    service = compose()["services"]["tessera"]
    assert os.path.samefile(REPOSITORY / "docker" / service["build"]["context"], REPOSITORY)
    assert service["healthcheck"]["test"][2] in arguments("COPY")[0]
    assert set(service["environment"]) <= {f"TESSERA_{name.upper()}" for name in Settings.model_fields}
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace > float(service["environment"]["TESSERA_DRAIN_SECONDS"])
