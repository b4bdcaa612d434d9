"""The interface of every backend's sessions: run batches, ask what it is and where its time goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tessera.engine.errors import BackendUnavailableError, InputError, ModelError
from tessera.engine.head import HeatMaps
from tessera.engine.normalisation import Normalisation
from tessera.engine.peak import ReadRates
from tessera.engine.profile import LayerCost
from tessera.engine.sizes import HeightWidth

Precision = Literal["auto", "int8", "bf16", "fp32"]
Bound = Literal["products", "memory", "other"]
Array = npt.NDArray[Any]

_EXPLAINED = 0.5  # share of a layer's time from which a limit is what binds it


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape (None: any) and element type of one input or output."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class SessionInfo:
    """What a session is.

    Attributes:
        backend: name of its backend.
        isa: instruction-set level of the kernels in use; the provider's name for ONNX Runtime.
        precision: "int8", "bf16" or "fp32": what most multiply-accumulates run in.
        threads: threads that one run uses.
        inputs: specifications of the inputs.
        outputs: specifications of the outputs.
        macs: multiply-accumulates of one image.
        arena_bytes: activation memory held between runs; 0 where the backend does not say.
        normalises: True when `run` also takes uint8 [N, H, W, C] and normalises it.
        explains: True when `explain` can say where scores come from.
        sizes: heights and widths that the file is meant for, the usual one first; empty where it does not
            say. `Session.at` opens the others.
    """

    backend: str
    isa: str
    precision: str
    threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    macs: int
    arena_bytes: int
    normalises: bool
    explains: bool = False
    sizes: tuple[HeightWidth, ...] = ()


@dataclass(frozen=True)
class DeviceStatus:
    """How an accelerator is doing.

    Attributes:
        index: its number, from 0, among those that this process may see.
        healthy: whether it gets batches.
        failures: how often it stopped getting batches since the session was loaded.
        last_error: what happened last; empty when nothing did.
        memory_free_bytes: free device memory; None where it does not say.
        memory_total_bytes: all device memory; None where it does not say.
        utilisation: share of time that each of its units was busy, 0 to 1; without those that do not say.
    """

    index: int
    healthy: bool
    failures: int
    last_error: str
    memory_free_bytes: int | None
    memory_total_bytes: int | None
    utilisation: Mapping[str, float]


@dataclass(frozen=True)
class LayerTiming:
    """One row of a profile: median over runs.

    Attributes:
        name: node name.
        op: operator.
        kernel: what ran it, "" where there is only one way.
        milliseconds: wall time of the layer for the whole batch.
        macs: multiply-accumulates for the whole batch.
        peak_share: achieved MAC/s over the measured register peak of the same precision and threads. Above 1 where a
            kernel leaves out multiplications, by padding or by Winograd's algorithm: `macs` counts them all the same.
        layer_class: kernel and output size, such as "3x3 @28".
        bytes_moved: least bytes that cross into the core for the whole batch: activations once, weights once.
        working_set: bytes of one image's activations and all weights: what would have to fit a cache.
        memory_share: least time to read `bytes_moved`, at the measured rate of a working set of that size (in L2, or
            from behind it), over the time that the layer took; 0 where no rate was measured.
        mac_ratio: share of the layer's cycles in which the matrix unit worked, by the device's own counters; None where
            there are none.
        core_share: share of all its cores' time in which a device ran the layer, by its own counters; None as above.
        bandwidths: GB/s that a device counted, reading and writing together, by buffer; without what it cannot count.
    """

    name: str
    op: str
    kernel: str
    milliseconds: float
    macs: int
    peak_share: float
    layer_class: str = ""
    bytes_moved: int = 0
    working_set: int = 0
    memory_share: float = 0.0
    mac_ratio: float | None = None
    core_share: float | None = None
    bandwidths: Mapping[str, float] = field(default_factory=dict)

    @property
    def bound(self) -> Bound | None:
        """What sets its time: the limit that would take longer, if it explains half of the time. None: not measured."""
        if not self.memory_share:
            return None
        if max(self.peak_share, self.memory_share) < _EXPLAINED:
            return "other"
        return "products" if self.peak_share >= self.memory_share else "memory"

    @classmethod
    def measured(
        cls,
        name: str,
        op: str,
        kernel: str,
        seconds: float,
        batch: int,
        cost: LayerCost,
        peak: float,
        reads: ReadRates | None = None,
    ) -> LayerTiming:
        """From a measured time, what the layer costs on paper, the peak in MAC/s, and how fast memory is read."""
        least_reading = cost.bytes_moved(batch) / reads.of(cost.bytes_moved(1)) if reads else 0.0
        return cls(
            name=name,
            op=op,
            kernel=kernel,
            milliseconds=seconds * 1e3,
            macs=cost.macs * batch,
            peak_share=cost.macs * batch / seconds / peak if seconds > 0 else 0.0,
            layer_class=cost.layer_class,
            bytes_moved=cost.bytes_moved(batch),
            working_set=cost.bytes_moved(1),
            memory_share=least_reading / seconds if seconds > 0 else 0.0,
        )


@dataclass(frozen=True)
class Slice:
    """What a thread did with some images in one layer.

    Attributes:
        name: node name.
        op: operator.
        kernel: what ran it, "" where there is only one way.
        thread: from 0; the calling thread where it took part.
        start: seconds since the run began.
        seconds: how long.
        helping: whether it helped another thread with that one's images.
    """

    name: str
    op: str
    kernel: str
    thread: int
    start: float
    seconds: float
    helping: bool = False


class Session(ABC):
    """A loaded model. `run` may be called from several threads; `close` when none is running."""

    @abstractmethod
    def run(self, x: Array) -> npt.NDArray[np.float32]:
        """Runs a batch.

        Args:
            x: float32 [N, C, H, W] normalised, or uint8 [N, H, W, C] where `describe().normalises`. Any N >= 1.

        Returns:
            The graph's output, float32 with N first.

        Raises:
            InputError: wrong type, rank or size.
            ModelError: the graph does not fit this many images, or what it computes them into.
            DeviceError: an accelerator failed.
        """

    def run_in_stages(self, x: Array) -> tuple[npt.NDArray[np.float32], Mapping[str, float]]:
        """Runs a batch and says where the time went.

        Returns:
            What `run` returns; and seconds by stage, added up over the parts of the batch. On Ascend: host, h2d,
            execution, d2h. Empty where a run has no stages.

        Raises:
            As `run`.
        """
        return self.run(x), {}

    def explain(self, x: Array, top: Sequence[int]) -> tuple[npt.NDArray[np.float32], list[HeatMaps | None]]:
        """Runs a batch, and says where in its images the highest scores come from.

        Args:
            x: as for `run`.
            top: for every image, of how many classes it says so; 0 for none.

        Returns:
            What `run` returns, and each image's maps, None where `top` is 0.

        Raises:
            ModelError: as `run`; or the network does not end in global average pooling and one linear layer, or the
                backend has no way to look at what is pooled: `describe().explains` is False.
        """
        raise no_explanation()

    def prepare_explaining(self) -> None:  # noqa: B027 a backend that needs none has nothing to do
        """Makes what `explain` needs, once; batches may run meanwhile. Otherwise the first `explain` does that.

        Raises:
            ModelError: the model's file is not what it was when it was loaded.
        """

    def at(self, height: int, width: int) -> Session:
        """The same model for images of another size, in a session of its own that has the same weights in memory.

        Either may be closed first.

        Raises:
            ModelError: the file fixes height and width, or is not what it was when it was loaded.
        """
        raise ModelError("This session takes images of one size; load a file that leaves height and width open.")

    @abstractmethod
    def describe(self) -> SessionInfo:
        """What this session is."""

    @abstractmethod
    def peak(self) -> float | None:
        """Multiply-accumulates a second that the session's hardware reaches at most in its precision.

        None where that is not known. On a CPU it is measured now, which takes about 0.2 s.
        """

    def reads(self) -> ReadRates | None:
        """How fast the session's hardware reads, measured now in about 0.3 s; None where that is not known."""
        return None

    @property
    def parallel_runs(self) -> int:
        """How many `run`s at once are worth it now, at least 1.

        More than 1 where the next batch is copied to a device while another executes, and where there are several.
        """
        return 1

    @property
    def parallel_images(self) -> int:
        """How many images of a batch run side by side, at least 1.

        What is beyond a multiple of it takes no longer as a batch of its own.
        """
        return 1

    @abstractmethod
    def profile(self, x: Array, runs: int = 10) -> list[LayerTiming]:
        """Times every layer: medians over `runs` runs of the batch `x`.

        Raises:
            InputError: as `run`, or `runs` is not positive.
        """

    def trace(self, x: Array) -> list[Slice]:
        """Runs the batch `x` once more after a warm one, and tells what every thread did when, by start.

        Empty where the backend does not say.

        Raises:
            InputError: as `run`.
        """
        return []

    def devices(self) -> tuple[DeviceStatus, ...]:
        """How the accelerators of this session are doing, asked now; none for sessions on the CPU."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Frees what the session holds. Running a closed session is an error; closing it again is not."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_batch(x: Array, spec: TensorSpec, normalisation: Normalisation | None) -> None:
    """Checks an input against [N, C, H, W] of the graph.

    Raises:
        InputError: says what was given and what is expected.
    """
    if not isinstance(x, np.ndarray):
        raise InputError(f"Session.run takes a NumPy array, not {type(x).__name__}.")
    channels_first = spec.shape[1:]
    if x.dtype == np.float32:
        expected: tuple[int | None, ...] = (None, *channels_first)
    elif x.dtype == np.uint8 and normalisation is not None and len(channels_first) == 3:
        expected = (None, channels_first[1], channels_first[2], channels_first[0])
    else:
        pixels = "" if normalisation is None else " or uint8 pixels"
        raise InputError(f"Input '{spec.name}' must be float32{pixels}, not {x.dtype}.")
    fits = x.ndim == len(expected) and all(want in (None, have) for want, have in zip(expected, x.shape, strict=True))
    if not fits or x.shape[0] < 1:
        layout = "[" + ", ".join("N" if i == 0 else str(n or "?") for i, n in enumerate(expected)) + "]"
        raise InputError(f"Input '{spec.name}' must have shape {layout} with N >= 1, not {list(x.shape)}.")


def unavailable(what: str) -> BackendUnavailableError:
    """The error of a session that was closed."""
    return BackendUnavailableError(f"{what} was closed; load the model again.")


def no_explanation() -> ModelError:
    """The error of a session that cannot say where its scores come from."""
    return ModelError(
        "This session cannot say where its scores come from: that takes a network that ends in global average pooling "
        "and one linear layer, on a CPU."
    )
