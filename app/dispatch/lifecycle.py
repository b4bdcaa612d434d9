"""Variants come and go while requests are answered: loaded beside the old one, swapped between batches, then freed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from tessera.app.errors import LoadFailedError, StartupError
from tessera.app.scheduling.lanes import variant_of
from tessera.app.scheduling.scheduler import Runner, Scheduler
from tessera.app.served.loading import LoadedModel, reload_variant
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.app.settings import Settings
from tessera.engine import DeviceStatus, EngineError, Session

logger = logging.getLogger(__name__)


class ModelLifecycle:
    """Owns the sessions that a scheduler runs. Its methods block, for as long as loading takes; one runs at a time.

    No request fails by a change. A new session is loaded and warmed before the swap. The old one is closed when its
    last batch is over. A variant is unloaded when everything that was admitted for it has its answer.

    Args:
        settings: The settings.
        loaded: The model as it was loaded at the start.
        scheduler: Runs its sessions.
        watch: Wraps each session before it is used.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedModel,
        scheduler: Scheduler,
        watch: Callable[[Session, ServedVariant], Runner],
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._watch = watch
        self._sessions: dict[str, Session] = dict(loaded.sessions)
        self._lock = threading.Lock()
        self._closed = False
        self.served: ServedModel = loaded.served

    def load(self, name: str) -> None:
        """Load a variant from its files, and let it answer in place of the one that did, if one did.

        Raises:
            LoadFailedError: It cannot be loaded; nothing has changed.
        """
        with self._lock:
            described = self.served.variants[name]
            try:
                sessions, fresh = reload_variant(self._settings, self.served, described)
            except StartupError as error:
                logger.warning("a variant could not be loaded, nothing changes: %s", error)
                raise LoadFailedError(f"The variant {name!r} cannot be loaded: {error}") from error
            if self._closed:
                for session in sessions.values():
                    session.close()
                return
            before = [self._sessions[lane] for lane in sessions if lane in self._sessions]
            for lane, session in sessions.items():
                self._scheduler.replace(lane, self._watch(session, fresh.at(lane)))
                self._sessions[lane] = session
            self._show(fresh)
            for session in before:
                session.close()
            logger.info("a variant was loaded", extra={"fields": {"variant": name, "replaced": bool(before)}})

    def unload(self, name: str) -> None:
        """Refuse further requests for a variant, wait for those admitted, and free it; harmless when it is unloaded."""
        with self._lock:
            if name not in self._sessions:
                return
            self._show(replace(self.served.variants[name], loaded=False))
            for lane in [lane for lane in self._sessions if variant_of(lane) == name]:
                self._scheduler.retire(lane)
                self._sessions.pop(lane).close()
            logger.info("a variant was unloaded", extra={"fields": {"variant": name}})

    def prepare_explaining(self, name: str) -> None:
        """Make what a variant needs to say where its scores come from; harmless when that is there, or it is unloaded.

        The one method that others may run beside.

        Raises:
            LoadFailedError: Its files are not what they were when it was loaded.
        """
        session = self._sessions.get(name)
        if session is None:
            return
        try:
            session.prepare_explaining()
        except EngineError as error:
            logger.warning("a variant cannot explain: %s", error)
            raise LoadFailedError(f"The variant {name!r} cannot explain now: {error}") from error

    def devices(self) -> dict[str, tuple[DeviceStatus, ...]]:
        """How the accelerators of each loaded variant are doing; none on a CPU."""
        sessions = dict(self._sessions)
        return {name: sessions[name].devices() for name in self.served.variants if name in sessions}

    def close(self) -> None:
        """Free every session; after the scheduler has stopped. What is being loaded meanwhile is freed when it is."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()
            self._lock.release()

    def _show(self, variant: ServedVariant) -> None:
        # A new object every time: readers in other threads hold either the old or the new one, never a mixture.
        self.served = replace(self.served, variants={**self.served.variants, variant.name: variant})
