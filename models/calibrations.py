"""Which calibration a model is built with: one that was made on this machine, else the one in its folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tessera.engine.errors import ModelError
from tessera.engine.quantize.calibration import Calibration
from tessera.engine.quantize.files import check_target, write_whole
from tessera.models.cache import calibration_file, make_folder
from tessera.models.formats.weights import file_sha256
from tessera.models.package import Package
from tessera.models.preprocessing.image_size import size_text
from tessera.models.preprocessing.transform import Preprocessing


@dataclass(frozen=True)
class Choice:
    """The calibration that a model is built with.

    Attributes:
        calibration: None when there is none, and the optimised variant runs in fp32.
        path: where it lies; None when there is none.
        remark: a sentence for people when it is not what they may expect; else empty.
    """

    calibration: Calibration | None
    path: Path | None
    remark: str


@dataclass(frozen=True)
class CalibrationFiles:
    """Where the calibrations of one model lie; each file need not exist.

    Attributes:
        package: the model.
        own: made on this machine, kept in the cache.
        refused: made on this machine, failed its gate, not accepted so far.
        shipped: in the model's folder.
        previous: what `shipped` was before the first quantisation into the folder.
        other: `own` for images of the size that the folder says, where another was asked for.
    """

    package: Package
    own: Path
    refused: Path
    shipped: Path
    previous: Path
    other: Path | None = None

    @classmethod
    def of(cls, package: Package, cache: Path, source_sha256: str | None = None) -> CalibrationFiles:
        """The places for a model in a cache folder.

        Args:
            package: the model.
            cache: the cache folder.
            source_sha256: SHA-256 of the model's weights, where it is known already.

        Raises:
            ModelError: the weights cannot be read.
        """
        sha256 = source_sha256 or file_sha256(package.source)

        def kept(preprocessing: Preprocessing) -> Path:
            state = {"weights": sha256, "photos": asdict(preprocessing)}
            fingerprint = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
            return calibration_file(cache, package.name, fingerprint)

        own, shipped = kept(package.preprocessing), package.calibration
        return cls(
            package,
            own,
            own.with_suffix(".refused.json"),
            shipped,
            shipped.with_suffix(".previous.json"),
            None if package.described is None else kept(package.described),
        )

    def choose(self, source_sha256: str) -> Choice:
        """The calibration to build with.

        Raises:
            ModelError: it is damaged, or was made for other weights.
        """
        path = next(
            (path for path in (self.own, self.other, self.shipped) if path is not None and path.is_file()), None
        )
        if path is None:
            return Choice(None, None, self._refusal())
        calibration = Calibration.load(path)
        if calibration.model_sha256 not in ("", source_sha256):
            raise ModelError(
                f"{path} was made for other weights than {self.package.source}. "
                f"Run: tessera models quantise --model-path {self._folder} FOLDER_OF_PHOTOS"
            )
        remarks = [self._refusal()]
        if path != self.own and self.package.described is not None:
            remarks.append(
                f"Its calibration was made on images of {size_text(self.package.described.size)} pixels; for "
                f"{size_text(self.package.preprocessing.size)}, run: "
                f"tessera models quantise --model-path {self._folder} FOLDER_OF_PHOTOS"
            )
        if calibration.verdict is not None and not calibration.verdict.met:
            remarks.append(f"The calibration failed its gate and was accepted: {calibration.verdict}.")
        if path == self.own and self.shipped.is_file():
            remarks.append(
                f"It is built from a calibration that was made on this machine, {path}, in place of the model's own; "
                f"`tessera models reset {self._folder}` undoes that."
            )
        return Choice(calibration, path, " ".join(filter(None, remarks)))

    def check_writable(self, into_folder: bool) -> None:
        """Find out before hours of work whether their result could be kept.

        Raises:
            ModelError: it could not; the message says where.
        """
        if not into_folder:
            make_folder(self.own.parent)
        check_target(self.shipped if into_folder else self.own)

    def keep(self, calibration: Calibration, *, into_folder: bool, accept: bool) -> Path:
        """Put a new calibration where the next build finds it, or aside when its gate is not met.

        Args:
            calibration: the calibration.
            into_folder: put it into the model's folder, not into the cache.
            accept: use it even when it failed its gate.

        Returns:
            The file that was written.

        Raises:
            ModelError: it cannot be written.
        """
        met = calibration.verdict is None or calibration.verdict.met
        if not met and not accept:
            make_folder(self.refused.parent)
            calibration.save(self.refused)
            return self.refused
        try:
            if into_folder:
                if self.shipped.is_file() and not self.previous.exists():
                    write_whole(self.previous, self.shipped.read_bytes())
                calibration.save(self.shipped)
                self.own.unlink(missing_ok=True)  # it would go first
            else:
                calibration.save(self.own)
            self.refused.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(f"Cannot write {error.filename}: {error.strerror or error}.") from error
        return self.shipped if into_folder else self.own

    def accept(self, *, into_folder: bool) -> Path:
        """Use the calibration that was put aside because it failed its gate; returns where it lies now.

        Raises:
            ModelError: there is none, or it cannot be moved.
        """
        if not self.refused.is_file():
            raise ModelError(
                f"{self.package.name} has no calibration that failed its gate, so there is nothing to accept. "
                f"Make one with: tessera models quantise --model-path {self._folder} FOLDER_OF_PHOTOS"
            )
        return self.keep(Calibration.load(self.refused), into_folder=into_folder, accept=True)

    def reset(self) -> list[Path]:
        """Undo every quantisation that was made on this machine; returns the files that were removed or put back.

        Raises:
            ModelError: there is nothing to undo, or a file cannot be removed.
        """
        touched = []
        try:
            for path in (self.own, self.refused):
                if path.is_file():
                    path.unlink()
                    touched.append(path)
            if self.previous.is_file():
                os.replace(self.previous, self.shipped)
                touched.append(self.shipped)
        except OSError as error:
            raise ModelError(f"Cannot undo {error.filename}: {error.strerror or error}.") from error
        if not touched:
            kept = f" {self.shipped} is part of the model's folder and stays." if self.shipped.is_file() else ""
            raise ModelError(f"{self.package.name} was not quantised on this machine: there is nothing to undo.{kept}")
        return touched

    @property
    def _folder(self) -> str:
        return self.package.words

    def _refusal(self) -> str:
        if not self.refused.is_file():
            return ""
        try:
            verdict = Calibration.load(self.refused).verdict
        except ModelError:
            return ""  # a calibration that is not used stops nothing
        return (
            f"The last quantisation failed its gate and is not used: {verdict}. "
            f"`tessera models quantise --accept --model-path {self._folder}` uses it all the same."
        )
