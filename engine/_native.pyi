from typing import Any

import numpy.typing as npt

U8: int
F32: int
BF16: int
GROUP: int
SIGMOID: int
HARD_SIGMOID: int
HARD_SWISH: int
SWISH: int

_Pair = tuple[int, int]
_Buffer = npt.NDArray[Any]

class Program:
    def __init__(self, threads: int, sharing: Program | None = None) -> None: ...
    def blocks(self, convs: list[tuple[int, int, int, int, int]], /) -> dict[int, int]: ...
    def tensor(
        self,
        dtype: int,
        channels: int,
        height: int,
        width: int,
        frame: tuple[int, int, int, int],
        zero: int,
        block: int,
        phases: bool,
        local: bool,
        images: int,
        offset: int,
    ) -> int: ...
    def segment(self, images: int, /) -> None: ...
    def input(
        self, target: int, shape: tuple[int, int, int], scale: float, pixel_values: _Buffer | None, element_bytes: int
    ) -> None: ...
    def conv(
        self,
        source: int,
        target: int,
        residual: int,
        kernel: _Pair,
        strides: _Pair,
        dilations: _Pair,
        pads: _Pair,
        groups: int,
        weights: _Buffer,
        bias: _Buffer,
        scale: _Buffer | None,
        residual_scale: float,
        low: float,
        high: float,
        filter_elements: int,
        outputs: int,
        integer: bool,
        rests: int,
    ) -> None: ...
    def pool(
        self,
        source: int,
        target: int,
        kernel: _Pair,
        strides: _Pair,
        dilations: _Pair,
        pads: tuple[int, int, int, int],
        average: bool,
        count_padding: bool,
        scale: float,
    ) -> None: ...
    def global_average(self, source: int, target: int, scale: float, tap: float, tap_elements: int, /) -> None: ...
    def eltwise(
        self, source: int, other: int, target: int, source_scale: float, other_scale: float, low: float, high: float
    ) -> None: ...
    def product(self, source: int, other: int, target: int, scale: float, /) -> None: ...
    def curve(
        self,
        source: int,
        target: int,
        kind: int,
        slope: float,
        offset: float,
        source_scale: float,
        target_scale: float,
        /,
    ) -> None: ...
    def flatten(self, source: int, target: int, /) -> None: ...
    def softmax(self, source: int, target: int, /) -> None: ...
    def output(self, source: int, elements: int, /) -> None: ...
    def finish(self, arena_bytes: int, chunk: int, /) -> None: ...
    def slices(self, images: int, /) -> int: ...
    def run(
        self, input: _Buffer, uint8: bool, images: int, output: _Buffer, slices: _Buffer = ..., tap: _Buffer = ...
    ) -> None: ...
    def steps(self) -> list[tuple[str, str]]: ...
    @property
    def isa(self) -> str: ...
    @property
    def arena_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...

def image_bytes(
    dtype: int,
    channels: int,
    height: int,
    width: int,
    frame: tuple[int, int, int, int],
    zero: int,
    block: int,
    phases: bool,
    local: bool,
    images: int,
    offset: int,
) -> int: ...
def image_framed(
    dtype: int,
    channels: int,
    height: int,
    width: int,
    frame: tuple[int, int, int, int],
    zero: int,
    block: int,
    phases: bool,
    local: bool,
    images: int,
    offset: int,
) -> bool: ...
def measure_peak(dtype: int, threads: int, /) -> float: ...
def measure_reads(bytes: int, threads: int, /) -> float: ...
def isa() -> str: ...
def trim_heap() -> None: ...
