"""buildah and podman with storage of their own in `build/image`: the containers of the machine are not touched."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Sequence

from tests.servers import REPOSITORY

FOLDER = REPOSITORY / "build" / "image"
# Layers are plain folders: slow and large, but they need neither overlayfs nor fuse.
STORAGE = [f"--root={FOLDER / 'storage'}", f"--runroot={FOLDER / 'run'}", "--storage-driver=vfs"]
BUILDAH = ["buildah", *STORAGE]
# runc, since crun refuses cgroups of version 1 beside version 2. No systemd is asked for anything.
PODMAN = ["podman", *STORAGE, "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file"]
PROGRAMS = ("debootstrap", "buildah", "podman", "runc")


class EngineError(Exception):
    """A program failed; the message has what it said."""


def missing() -> list[str]:
    """What has to be installed first; the packages of Debian are called as the programs."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def output(command: Sequence[str], timeout: float = 1800.0) -> str:
    """Run a command to its end, and return what it wrote to standard output.

    Raises:
        EngineError: It failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise EngineError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


class Container:
    """A container of an image, confined as `docker/compose.yaml` has it; a context manager that removes it.

    Args:
        image: Name of the image.
        flags: Further flags of `podman run`.
        variables: Its environment.
    """

    def __init__(self, image: str, *flags: str, **variables: str) -> None:
        self._flags = [
            "--network=host",  # no bridge can be made in a sandbox
            "--read-only",
            "--tmpfs=/tmp:size=16m",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--memory=2g",
            "--pids-limit=256",
            *limits(),
            *flags,
            *(f"--env={name}={value}" for name, value in variables.items()),
        ]
        self._image = image
        self.name = ""

    def __enter__(self) -> Container:
        self.name = output([*PODMAN, "run", "--detach", *self._flags, self._image]).strip()
        return self

    def __exit__(self, *error: object) -> None:
        output([*PODMAN, "rm", "--force", "--volumes", "--time=0", self.name])

    def execute(self, *command: str) -> str:
        """What a command in the container writes."""
        return output([*PODMAN, "exec", self.name, *command])

    def is_healthy(self) -> bool:
        """Whether the image's own HEALTHCHECK succeeds, run once: what runs it in turns is the engine's business."""
        return (
            subprocess.run([*PODMAN, "healthcheck", "run", self.name], capture_output=True, check=False).returncode == 0
        )

    def stop(self, seconds: int) -> int:
        """Send the image's stop signal, kill after `seconds`; returns the exit code, 137 when it was killed."""
        output([*PODMAN, "stop", f"--time={seconds}", self.name])
        return int(output([*PODMAN, "inspect", "--format={{.State.ExitCode}}", self.name]))

    def log(self) -> str:
        """What it wrote to standard output and standard error."""
        done = subprocess.run([*PODMAN, "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


def limits() -> list[str]:
    """podman asks for more files and processes than a sandbox may have; no more than this process has is asked for."""
    flags = []
    for name, kind, most in (("nofile", resource.RLIMIT_NOFILE, 8192), ("nproc", resource.RLIMIT_NPROC, 4096)):
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        flags.append(f"--ulimit={name}={allowed}:{allowed}")
    return flags
