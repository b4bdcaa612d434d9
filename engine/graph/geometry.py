"""Window arithmetic along one spatial dimension: padding and output sizes of convolutions and pools."""

from __future__ import annotations


def span(kernel: int, dilation: int) -> int:
    """How many input positions a window covers from its first to its last tap."""
    return (kernel - 1) * dilation + 1


def output_size(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Number of windows that fit; 0 or less when not even one does."""
    room = size + before + after - span(kernel, dilation)
    return room // stride + 1 if room >= 0 else 0


def same_padding(size: int, kernel: int, stride: int, dilation: int, *, lower: bool) -> tuple[int, int]:
    """Padding (before, after) for auto_pad SAME_*: ceil(size / stride) windows, an odd pixel before when `lower`."""
    windows = -(-size // stride)
    total = max((windows - 1) * stride + span(kernel, dilation) - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def ceil_overhang(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """How many positions past the padding ceil_mode's last window reaches.

    A last window that would start in the padding after the image is dropped, as ONNX specifies.
    """
    room = size + before + after - span(kernel, dilation)
    windows = -(-room // stride) + 1
    if (windows - 1) * stride >= size + before:
        windows -= 1
    return max((windows - 1) * stride - room, 0)
