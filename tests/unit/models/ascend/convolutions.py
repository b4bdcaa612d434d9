"""The operator package, and convolutions for it to be tested with."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from tessera.models.ascend.custom_conv.tbe.geometry import Shape
from tests.servers import REPOSITORY

PACKAGE = REPOSITORY / "models" / "ascend" / "custom_conv"
STUBS = Path(__file__).parent / "stubs"

shapes = st.builds(
    Shape,
    batch=st.integers(1, 3),
    c1=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    cout1=st.integers(1, 6),
    stride_h=st.integers(1, 3),
    stride_w=st.integers(1, 3),
    pad_top=st.integers(0, 2),
    pad_bottom=st.integers(0, 2),
    pad_left=st.integers(0, 2),
    pad_right=st.integers(0, 2),
).filter(
    lambda s: (
        s.height + s.pad_top + s.pad_bottom >= 3
        and s.width + s.pad_left + s.pad_right >= 3
        # A whole row of windows inside the padding is legal in ONNX but has no first input row.
        and s.height > max(s.pad_top, s.pad_bottom)
    )
)
