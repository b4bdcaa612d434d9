"""From settings to a model whose every variant is built, loaded and warm. Blocking; runs before the first answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tessera import engine
from tessera.app.errors import StartupError
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.app.served.plan import check_plan
from tessera.app.served.profile import kept_profile
from tessera.app.served.selection import cache_folder, find_model, locate
from tessera.app.served.warmup import Described, check, measure_batches, open_further, peak_of, run_once
from tessera.app.settings import Settings
from tessera.engine.backends import BACKENDS
from tessera.engine.errors import EngineError
from tessera.engine.normalisation import Normalisation
from tessera.models import contest
from tessera.models.formats.foreign import ForeignModel
from tessera.models.package import LABELS, read_package
from tessera.models.preprocessing.image_size import size_text
from tessera.models.registry import Model, open_model
from tessera.models.variant import VARIANTS, Variant

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class LoadedModel:
    """A model and the sessions of its loaded variants.

    Attributes:
        served: All of it described without the sessions, unloaded variants included.
        sessions: By lane, of those variants that are loaded.
    """

    served: ServedModel
    sessions: dict[str, engine.Session]


def open_configured_model(settings: Settings, progress: Progress | None = None) -> Model:
    """Open the model that the settings mean, building its variants when they are not in the cache.

    Raises:
        StartupError: It cannot be found or built, or lacks the default variant; the message says why.
    """
    try:
        located = locate(settings)
        name = located.name if isinstance(located, ForeignModel) else read_package(located).name
        if settings.default_variant not in VARIANTS:
            raise StartupError(
                f"The default variant {settings.default_variant!r} does not exist; {name} has: {', '.join(VARIANTS)}."
            )
        check_plan(settings, name, VARIANTS)  # before the minutes that an import and a build may take
        model = open_model(
            find_model(settings, progress),
            cache=settings.cache_dir,
            progress=progress,
            target=settings.backend,
            sizes=settings.image_sizes,
        )
        return contest.remembered(model, _threads(settings)) if settings.backend == "auto" else model
    except (EngineError, OSError) as error:
        raise StartupError(f"The model cannot be opened: {error}") from error


def _open_under_its_name(settings: Settings, progress: Progress | None = None) -> Model:
    """Open the model that the settings mean, called what they say."""
    model = open_configured_model(settings, progress)
    return model if settings.model_name is None else replace(model, name=settings.model_name)


def load(settings: Settings, progress: Progress, known: ServedModel | None = None) -> LoadedModel:
    """Open the model, and load and warm every variant, measuring its batches up to `max_batch`.

    Args:
        settings: The settings.
        progress: Told about building and loading: (stage, fraction of the stage).
        known: The model as an earlier process served it. Its state is restored: the same files as long as they exist,
            and what was unloaded stays so. What was measured then is not measured again, and of the same files nothing
            is found out again either.

    Raises:
        StartupError: The model cannot be found, built or loaded; the message says why.
    """
    served = None if known is None else _variants_as_served(known)
    files: Mapping[str, Variant]
    opened_model: Model | None = None
    if known is not None and served is not None:
        model: Described = known
        files = served
    else:
        model = opened_model = _open_under_its_name(settings, progress)
        known = known if known is not None and known.name == model.name else None
        unloaded = set() if known is None else {name for name, before in known.variants.items() if not before.loaded}
        files = {name: variant for name, variant in opened_model.variants.items() if name not in unloaded}
        _tell(opened_model, settings)
        _warn(files)
    progress(f"loading {' and '.join(files)}", 0.0)
    with ExitStack() as opened:
        sessions = _open_sessions(model.name, files, settings, opened)
        if opened_model is not None and files.keys() == opened_model.variants.keys():
            files = _settle(opened_model, sessions, settings, opened, progress).variants
        variants: dict[str, ServedVariant] = {}
        further: dict[str, engine.Session] = {}
        for position, (name, session) in enumerate(sessions.items()):
            progress(f"warming {name}", position / len(sessions))
            try:
                before = known.variants.get(name) if known is not None else None
                if before is None:
                    info = check(model, files[name], session)
                    seconds = measure_batches(session, settings.max_batch, model.preprocessing.shape)
                    # What takes an unknown number of products has no utilisation.
                    variants[name] = _described(files[name], info, peak_of(session) if info.macs else None, seconds)
                elif served is not None:
                    run_once(model, files[name], session)
                    variants[name] = before
                else:
                    info = check(model, files[name], session)
                    variants[name] = _described(files[name], info, before.peak, before.batch_seconds)
                sized = open_further(model, files[name], session, settings.max_batch, before, opened)
                further |= {lane: one for lane, (one, _) in sized.items()}
                variants[name] = replace(variants[name], further={lane: of for lane, (_, of) in sized.items()})
            except (EngineError, OSError) as error:
                raise _not_loadable(model.name, name, error) from error
        opened.pop_all()
    return LoadedModel(_describe(model, variants, sessions, known, cache_folder(settings)), {**sessions, **further})


def _settle(
    model: Model, sessions: dict[str, engine.Session], settings: Settings, opened: ExitStack, progress: Progress
) -> Model:
    """Leave the optimised variant to whoever is faster, and replace its session then."""
    threads = _threads(settings)
    if settings.backend != "auto" or not contest.is_open(model, threads):
        return model
    progress("comparing the variants", 0.0)
    try:
        for name, session in sessions.items():
            check(model, model.variants[name], session)
        settled = contest.settle(model, threads, sessions, lambda variant: open_session(variant, settings))
    except (EngineError, OSError) as error:
        raise _not_loadable(model.name, "optimised", error) from error
    opened.callback(sessions["optimised"].close)
    if (variant := settled.variants["optimised"]) != model.variants["optimised"]:
        _warn({"optimised": variant})
    return settled


def _threads(settings: Settings) -> int:
    """Threads of one run."""
    return settings.threads if settings.threads is not None else engine.cpu_budget()


def _describe(
    model: Described,
    variants: dict[str, ServedVariant],
    sessions: dict[str, engine.Session],
    known: ServedModel | None,
    cache: Path,
) -> ServedModel:
    """A model that has just been loaded, with what stays unloaded."""
    if known is not None:
        variants = {name: variants.get(name, replace(before, loaded=False)) for name, before in known.variants.items()}
        names = known.input_name, known.output_name
    else:
        info = next(iter(sessions.values())).describe()  # all variants are made from one graph, so they share its names
        names = info.inputs[0].name, info.outputs[0].name
    kept = kept_profile(cache, model.name, variants, model.preprocessing, _machine(sessions))
    return ServedModel(model.name, tuple(model.labels), *names, model.preprocessing, variants, kept, model.others)


def _machine(sessions: Mapping[str, engine.Session]) -> str:
    """What the first of them runs on; empty without any."""
    infos = [session.describe() for session in sessions.values()]
    return BACKENDS[infos[0].backend].machine(infos[0]) if infos else ""


def _tell(model: Model, settings: Settings) -> None:
    """Log what is served, and how it sees photos."""
    found = locate(settings)
    source, labels = (found.file, found.labels) if isinstance(found, ForeignModel) else (found, found / LABELS)
    fields = {"name": model.name, "path": str(source), **asdict(model.preprocessing), "description": model.description}
    if model.others:
        fields["sizes"] = ", ".join(size_text(each.size) for each in (model.preprocessing, *model.others))
    logger.info("the model", extra={"fields": fields})
    if model.labels[0] == "class 0":
        fields = {"classes": len(model.labels), "labels": str(labels)}
        logger.warning(
            "its classes have no names; write them into the file of labels, one per line, and start again",
            extra={"fields": fields},
        )


def _warn(variants: Mapping[str, Variant]) -> None:
    """Log what the registry has to say of variants that are not what people may expect."""
    for name, variant in variants.items():
        if variant.note:
            logger.warning("a variant needs a look", extra={"fields": {"variant": name, "note": variant.note}})


def _variants_as_served(known: ServedModel) -> dict[str, ServedVariant] | None:
    """The loaded variants of a model; None when what they were loaded from is not all there any more."""
    loaded = {name: variant for name, variant in known.variants.items() if variant.loaded}
    files = [path for variant in loaded.values() for path in (variant.path, variant.graph) if path is not None]
    return loaded if all(path.is_file() for path in files) else None


def _described(
    variant: Variant, info: engine.SessionInfo, peak: float | None, batch_seconds: dict[int, float]
) -> ServedVariant:
    return ServedVariant(
        name=variant.name,
        path=variant.path.absolute(),
        backend=info.backend,
        precision=info.precision,
        note=variant.note,
        graph=None if variant.graph is None else variant.graph.absolute(),
        mean=variant.mean,
        std=variant.std,
        gate=variant.gate,
        platform=BACKENDS[info.backend].platform,
        isa=info.isa,
        threads=info.threads,
        macs=info.macs,
        arena_bytes=info.arena_bytes,
        peak=peak,
        batch_seconds=batch_seconds,
        explains=info.explains,
    )


def _open_sessions(
    model: str, files: Mapping[str, Variant], settings: Settings, opened: ExitStack
) -> dict[str, engine.Session]:
    """Load all variants side by side, because each uses one core at a time while it packs its weights."""
    with ThreadPoolExecutor(max(1, len(files))) as threads:
        loading = {name: threads.submit(open_session, variant, settings) for name, variant in files.items()}
    for job in loading.values():
        if job.exception() is None:
            opened.callback(job.result().close)
    sessions = {}
    for name, job in loading.items():
        try:
            sessions[name] = job.result()
        except (EngineError, OSError) as error:
            raise _not_loadable(model, name, error) from error
    return sessions


def _not_loadable(model: str, variant: str, error: Exception) -> StartupError:
    return StartupError(f"Variant {variant!r} of {model} cannot be loaded: {error}")


def reload_variant(
    settings: Settings, served: ServedModel, known: ServedVariant
) -> tuple[dict[str, engine.Session], ServedVariant]:
    """Load and warm one variant from the model's files as they are now, while others answer; sessions are by lane.

    Args:
        settings: The settings.
        served: The model that is being served; its labels and preprocessing have to be those of the files.
        known: The variant, with what was measured of it at the start: on an idle machine, which this one may not be.

    Raises:
        StartupError: The model or the variant cannot be opened or built, or it is another model by now.
    """
    model = _open_under_its_name(settings)
    name = known.name
    variant = model.variants.get(name)
    if variant is None:
        raise StartupError(f"{model.name} has no variant {name!r} any more.")
    if (model.name, list(model.labels)) != (served.name, list(served.labels)):
        raise StartupError("The files hold another model or other labels by now; that needs a restart of the service.")
    if (model.preprocessing, model.others) != (served.preprocessing, served.others):
        raise StartupError("The files want photos prepared otherwise by now; that needs a restart of the service.")
    _warn({name: variant})
    with ExitStack() as opened:
        try:
            sessions = {name: open_session(variant, settings)}
            if name == "optimised" and settings.backend == "auto" and contest.is_open(model, _threads(settings)):
                with open_session(model.variants["baseline"], settings) as sessions["baseline"]:
                    variant = _settle(model, sessions, settings, opened, lambda stage, fraction: None).variants[name]
            session = sessions[name]
            opened.callback(session.close)
            info = check(model, variant, session)
            session.run(np.zeros((settings.max_batch, *model.preprocessing.shape), np.uint8))
            sized = open_further(model, variant, session, settings.max_batch, known, opened)
        except (EngineError, OSError) as error:
            raise StartupError(str(error)) from error
        opened.pop_all()
    fresh = _described(variant, info, known.peak, known.batch_seconds)
    further = {lane: of for lane, (_, of) in sized.items()}
    return {name: session, **{lane: one for lane, (one, _) in sized.items()}}, replace(fresh, further=further)


def default_decode_threads() -> int:
    """How many images are decoded at once unless a setting says so: half of the CPU budget, at least 2."""
    return max(2, engine.cpu_budget() // 2)


def open_session(variant: Variant, settings: Settings) -> engine.Session:
    """Load one variant on its backend."""
    normalisation = None if variant.mean is None or variant.std is None else Normalisation(variant.mean, variant.std)
    return engine.load(
        variant.path,
        backend=variant.backend,
        threads=settings.threads,
        precision="auto" if variant.graph is None or variant.precision != "int8" else "int8",
        graph=variant.graph,
        normalisation=normalisation,
    )
