from collections.abc import Callable
from typing import Any

import numpy.typing as npt

# Samples, how many of them are resized, to how many outputs, the first that is wanted, and how many are.
_Axis = tuple[int, float, int, int, int]

class Resize:
    def __init__(self, across: _Axis, down: _Axis, merged: int, bicubic: bool) -> None: ...
    def take(self, picture: Any, width: int, left: int, top: int, /) -> None: ...
    def finish(self, out: npt.NDArray[Any], /) -> None: ...
    @property
    def box(self) -> tuple[int, int, int, int]: ...

class Libjpeg:
    def __init__(self, path: str) -> None: ...
    def read(
        self,
        data: bytes,
        scale: int,
        size: tuple[int, int],
        box: tuple[int, int, int, int],
        into: Resize | npt.NDArray[Any],
        wanted: Callable[[], bool] | None,
        /,
    ) -> bool: ...
