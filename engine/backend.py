"""What a backend is: which files it opens, whether it works here, and what runs its sessions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tessera.engine.machine import cache_sizes, cpu_name
from tessera.engine.normalisation import Normalisation
from tessera.engine.session import Precision, Session, SessionInfo
from tessera.wording import counted


@dataclass(frozen=True)
class LoadOptions:
    """How a model is to be loaded; see `tessera.engine.load`."""

    threads: int
    precision: Precision = "auto"
    graph: Path | None = None
    normalisation: Normalisation | None = None


class Backend(ABC):
    """One way to run models. Its answers are those of a machine's processor unless it says otherwise.

    Attributes:
        name: As `tessera.engine.load` and settings call it.
        suffixes: Of the files that it opens.
        platform: As the Open Inference Protocol calls it.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    platform: ClassVar[str]

    def available(self) -> bool:
        """Whether this machine has what it runs on."""
        return True

    @abstractmethod
    def open(self, path: Path, options: LoadOptions) -> Session:
        """Loads a model.

        Raises:
            ModelError: The file is corrupt, or outside what this backend runs.
            BackendUnavailableError: The backend cannot work on this machine.
        """

    def machine(self, info: SessionInfo) -> str:
        """What runs a session, for a title."""
        return f"{cpu_name()}, {counted(info.threads, 'thread')}"

    def caches(self, info: SessionInfo) -> dict[str, int]:
        """Bytes of what a session's data may fit into, by name ("L1", "L2"); empty where that is not known."""
        return cache_sizes()
