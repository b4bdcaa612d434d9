"""What calibration found out: the numbers that turn a float network into an eight-bit one, as a small text file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tessera.engine.errors import ModelError
from tessera.engine.quantize.files import write_whole
from tessera.engine.quantize.placement.floats import Gain, choose_floats
from tessera.engine.quantize.rounding.activations import ActivationRange
from tessera.engine.quantize.rounding.digits import BIAS_DIGITS, RANGE_DIGITS, short
from tessera.engine.quantize.rounding.weights import LARGEST
from tessera.engine.rates import FloatPrecision, Rates

_FORMAT, _FORMAT_WITHOUT_GAINS = 2, 1
_TOO_LARGE = 1e30


@dataclass(frozen=True)
class Verdict:
    """What the gate said of the quantised network, on images that nothing was fitted to.

    Attributes:
        met: whether it reached what was asked; False where nothing could be measured.
        images: how many images it was measured on.
        sqnr: signal-to-noise ratio of the result, in dB; None where both results are equal or nothing was measured.
        agreement: share of images with the same first class, 0 to 1; None where nothing was measured.
        least_sqnr: what was asked, in dB.
        least_agreement: what was asked, 0 to 1.
    """

    met: bool
    images: int
    sqnr: float | None
    agreement: float | None
    least_sqnr: float
    least_agreement: float

    def __str__(self) -> str:
        """What was measured and asked, as part of a sentence."""
        if self.agreement is None:
            return "there were too few images to measure anything"
        noise = "no noise" if self.sqnr is None else f"SQNR {self.sqnr:.1f} dB"
        return (
            f"{noise} where {self.least_sqnr:g} dB was asked, agreement {self.agreement:.1%} where "
            f"{self.least_agreement:.1%} was asked"
        )

    @classmethod
    def from_json(cls, table: Any) -> Verdict:
        """The inverse of `dataclasses.asdict`.

        Raises:
            ModelError: it is no verdict.
        """
        names = {"sqnr": True, "agreement": True, "least_sqnr": False, "least_agreement": False}
        if (
            not isinstance(table, dict)
            or set(table) != {"met", "images", *names}
            or type(table["met"]) is not bool
            or type(table["images"]) is not int
            or not all(_is_measure(table[name], optional) for name, optional in names.items())
        ):
            raise ModelError("This calibration's 'verdict' is none. Calibrate the model again.")
        return cls(**table)


@dataclass(frozen=True)
class Calibration:
    """The result of looking at calibration images.

    Attributes:
        ranges: activation range per tensor, named as in the float model with BatchNormalization folded.
        bias_corrections: per Conv or Gemm (named by its output), what to add to each output channel's bias so that
            quantisation leaves the channel's mean where it was.
        method: how the ranges were chosen.
        images: how many images were seen.
        model_sha256: SHA-256 of the file that holds the weights these numbers belong to; empty when unknown.
        floats: tensors that stay in floating point, and with them the layers that read them.
        gains: by tensor, what its eight bits cost and what floating point would: what `for_cpu` chooses from. Empty in
            files from before it was kept, and without a fallback: then `floats` holds for every CPU.
        noise_limit: the most that the noise of all tensors in eight bits may add up to, by `gains`.
        float_precision: "bf16" or "fp32": what these layers are meant to compute in.
        channel_scales: by tensor, what each channel of it, and of the tensors tied to it, is divided by before
            quantisation (see `tessera.engine.quantize.settlement.equalisation`).
        weight_limits: per Conv (named by its output) whose integer weights end below 127, where (see
            `tessera.engine.quantize.placement.narrowing`).
        verdict: what the gate said of it; None for files from before it was kept.
    """

    ranges: dict[str, ActivationRange]
    bias_corrections: dict[str, tuple[float, ...]] = field(default_factory=dict)
    method: str = "mse"
    images: int = 0
    model_sha256: str = ""
    floats: tuple[str, ...] = ()
    float_precision: FloatPrecision = "fp32"
    channel_scales: dict[str, tuple[float, ...]] = field(default_factory=dict)
    weight_limits: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    gains: dict[str, Gain] = field(default_factory=dict)
    noise_limit: float = 0.0

    def for_cpu(self, rates: Rates) -> Calibration:
        """The same calibration with the tensors in floating point that cost a class of CPUs least.

        The predicted noise is within what met the gate where the calibration was made.
        """
        if not self.gains:
            return self
        return replace(self, floats=tuple(choose_floats(self.gains, self.noise_limit, rates, self.float_precision)))

    def costs(self, rates: Rates) -> dict[str, float]:
        """By tensor in `floats`, the milliseconds that it costs an image on one core at least; empty without gains."""
        kept = (name for name in self.floats if name in self.gains)
        return {name: self.gains[name].milliseconds(rates, self.float_precision) for name in kept}

    def to_json(self) -> str:
        """The calibration as text: the same numbers always give the same bytes."""
        head: dict[str, Any] = {
            "format": _FORMAT if self.gains else _FORMAT_WITHOUT_GAINS,
            "method": self.method,
            "images": self.images,
            "model_sha256": self.model_sha256,
            "floats": list(self.floats),
            "float_precision": self.float_precision,
        }
        if self.verdict is not None:
            head["verdict"] = asdict(self.verdict)
        if self.weight_limits:
            head["weight_limits"] = self.weight_limits
        if self.gains:
            head["noise_limit"] = self.noise_limit
        ranges = {name: short((r.low, r.high), RANGE_DIGITS) for name, r in self.ranges.items()}
        biases = {name: short(values, BIAS_DIGITS) for name, values in self.bias_corrections.items()}
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        lines += [_block("ranges", ranges), _block("bias_corrections", biases)]
        if self.channel_scales:
            scales = {name: short(values, BIAS_DIGITS) for name, values in self.channel_scales.items()}
            lines.append(_block("channel_scales", scales))
        if self.gains:
            rows = {name: [gain.noise, gain.macs, gain.elements, gain.rounded] for name, gain in self.gains.items()}
            lines.append(_block("gains", rows))
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the text to `path`; a reader sees the old file or the whole new one.

        Raises:
            ModelError: the file cannot be written.
        """
        write_whole(path, self.to_json().encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a calibration file.

        Raises:
            ModelError: the file is missing, is not a calibration, or holds impossible numbers.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"Cannot read the calibration {os.fspath(path)}: {error}.") from error
        try:
            return cls.from_json(text)
        except ModelError as error:
            raise ModelError(f"{os.fspath(path)}: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Parse what `to_json` wrote.

        Raises:
            ModelError: the text is not a calibration, or holds impossible numbers.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"This calibration is not valid JSON: {error}. Calibrate the model again.") from error
        if not isinstance(document, dict) or document.get("format") not in (_FORMAT, _FORMAT_WITHOUT_GAINS):
            raise ModelError(f"This is not a calibration of format 1 or {_FORMAT}. Calibrate the model again.")
        method, images, digest = (document.get(key) for key in ("method", "images", "model_sha256"))
        if not isinstance(method, str) or not isinstance(digest, str) or type(images) is not int or images < 0:
            raise ModelError("This calibration does not say how it was made. Calibrate the model again.")
        ranges = {name: _range(name, pair) for name, pair in _table(document, "ranges").items()}
        biases = {name: _numbers(name, values) for name, values in _table(document, "bias_corrections").items()}
        floats, precision = document.get("floats", []), document.get("float_precision", "fp32")
        if not isinstance(floats, list) or not all(isinstance(name, str) for name in floats):
            raise ModelError("This calibration's 'floats' is not a list of tensors. Calibrate the model again.")
        if precision not in ("bf16", "fp32"):
            raise ModelError("This calibration's 'float_precision' is not bf16 or fp32. Calibrate the model again.")
        scales = {
            name: _positive(name, values)
            for name, values in _table({"channel_scales": {}, **document}, "channel_scales").items()
        }
        limits = document.get("weight_limits", {})
        if not isinstance(limits, dict) or not all(type(end) is int and 1 <= end <= LARGEST for end in limits.values()):
            raise ModelError(f"This calibration's 'weight_limits' are not 1 to {LARGEST}. Calibrate the model again.")
        verdict = Verdict.from_json(document["verdict"]) if "verdict" in document else None
        gains, noise_limit = {}, 0.0
        if document["format"] == _FORMAT:
            gains = {name: _gain(name, row) for name, row in _table(document, "gains").items()}
            (noise_limit,) = _numbers("noise_limit", [document.get("noise_limit")])
        return cls(
            ranges,
            biases,
            method,
            images,
            digest,
            tuple(floats),
            precision,
            scales,
            limits,
            verdict,
            gains,
            noise_limit,
        )


def _gain(name: str, row: Any) -> Gain:
    noise, *counts = _numbers(name, row) or (-1.0,)
    if len(counts) != 3 or noise < 0 or not all(count >= 0 and count.is_integer() for count in counts):
        raise ModelError(f"The gain of '{name}' is not [noise, macs, elements, rounded]. Calibrate the model again.")
    return Gain(noise, *map(int, counts))


def _block(key: str, table: Mapping[str, Sequence[float]]) -> str:
    rows = [f"    {json.dumps(name)}: {json.dumps(values)}" for name, values in table.items()]
    return f"  {json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n  }" if rows else f"  {json.dumps(key)}: {{}}"


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key)
    if not isinstance(table, dict):
        raise ModelError(f"This calibration has no table '{key}'. Calibrate the model again.")
    return table


def _range(name: str, pair: Any) -> ActivationRange:
    values = _numbers(name, pair)
    if len(values) != 2 or not values[0] <= 0 <= values[1] or not values[1] - values[0] > 1e-30:
        raise ModelError(f"The calibrated range of '{name}' is {pair}, not [low <= 0, high >= 0]. Calibrate again.")
    return ActivationRange(*values)


def _is_measure(value: Any, optional: bool) -> bool:
    return (value is None and optional) or (type(value) in (int, float) and abs(value) < _TOO_LARGE)


def _positive(name: str, values: Any) -> tuple[float, ...]:
    scales = _numbers(name, values)
    if not scales or min(scales) < 1e-6:
        raise ModelError(f"The channel scales of '{name}' are not above zero. Calibrate the model again.")
    return scales


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
        raise ModelError(f"The calibration of '{name}' is not a list of numbers. Calibrate the model again.")
    if not all(abs(value) < _TOO_LARGE for value in values):  # false for a NaN as well
        raise ModelError(f"The calibration of '{name}' holds a number that is not finite. Calibrate the model again.")
    return tuple(float(value) for value in values)
