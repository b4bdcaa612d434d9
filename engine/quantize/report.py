"""What quantisation chose, and why: plain data for a JSON file and for tables."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field

from tessera.engine.quantize.calibration import Verdict
from tessera.engine.quantize.measures import is_below
from tessera.engine.quantize.settlement.choice import TensorChoice
from tessera.engine.quantize.settlement.propagation import LayerNoise
from tessera.engine.quantize.settlement.sensitivity import Sensitivity
from tessera.engine.rates import Rates

# Stands for logits that are no numbers, or compared with nothing but zeros; JSON has no infinity.
_LOWEST = -300.0


@dataclass(frozen=True)
class Gate:
    """What the quantised network must reach on calibration images that its numbers were not fitted to.

    Attributes:
        sqnr: least signal-to-noise ratio of the result, in dB.
        agreement: least share of images for which both networks name the same class first, 0 to 1. It is missed
            where the images prove that the true share is below it (`measures.is_below`), not where chance may have
            brought fewer.
    """

    sqnr: float = 30.0
    agreement: float = 0.98

    def is_met(self, sqnr: float, agreement: float, images: int) -> bool:
        """Whether what was measured on so many images reaches what is asked."""
        return sqnr >= self.sqnr and not is_below(round(agreement * images), images, self.agreement)


@dataclass(frozen=True)
class Round:
    """One attempt.

    Attributes:
        floats: tensors kept in floating point.
        sqnr: signal-to-noise ratio of the result, in dB; None where nothing could be measured.
        agreement: share of images with the same first class, likewise.
    """

    floats: tuple[str, ...]
    sqnr: float | None
    agreement: float | None


@dataclass(frozen=True)
class Report:
    """The whole story of one quantisation.

    Attributes:
        images: calibration images seen.
        checked: images that the gate was measured on.
        gate: what was asked.
        met: whether the last round meets it; True where nothing could be measured.
        rounds: every attempt, the last of which was kept.
        choices: how the range of each tensor was chosen, in the last round.
        layers: noise along the network, in the last round.
        sensitivities: what each tensor's eight bits cost by themselves, worst first; empty when not measured.
        milliseconds: by tensor kept in floating point, what that costs an image on one core here, at least.
        rates: what these costs were computed with: register peaks of this class of CPU in GMAC/s, and their origin.
        equalised: tensors whose channels were rescaled.
        seconds: how long it took.
    """

    images: int
    checked: int
    gate: Gate
    met: bool
    rounds: list[Round]
    choices: list[TensorChoice]
    layers: list[LayerNoise]
    sensitivities: list[Sensitivity] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)
    rates: Rates | None = None
    equalised: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def floats(self) -> list[Sensitivity]:
        """The tensors that were kept in floating point, with what their eight bits would have cost."""
        kept = set(self.rounds[-1].floats)
        return [entry for entry in self.sensitivities if entry.tensor in kept]

    @property
    def verdict(self) -> Verdict:
        """What the gate said of the last round."""
        last = self.rounds[-1]
        measured = last.agreement is not None
        return Verdict(
            met=self.met and measured,
            images=self.checked if measured else 0,
            sqnr=None if last.sqnr in (None, math.inf) else max(_LOWEST, last.sqnr),
            agreement=last.agreement,
            least_sqnr=self.gate.sqnr,
            least_agreement=self.gate.agreement,
        )

    def to_json(self) -> str:
        """The report as a JSON document."""
        return json.dumps(asdict(self), indent=1) + "\n"
