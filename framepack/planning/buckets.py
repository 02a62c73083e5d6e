"""Sizes that the released models were trained on, and the one that fits a picture best."""

from __future__ import annotations

from ..errors import FramePackError, quoted
from ..units import RELEASED

BASE_SIZE, MIN_BASE, MAX_BASE = 640, 64, 4096
MAX_SIDE = 1_000_000  # pixels of a picture
# Height and width of the released models' 14 buckets at 640.
BUCKETS = (
    *((416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640)),
    *((640, 608), (672, 576), (704, 544), (768, 512), (832, 480), (864, 448), (960, 416)),
)


def nearest_bucket(height: int, width: int, base: int = BASE_SIZE) -> tuple[int, int]:
    """Height and width of the bucket whose shape is nearest to a picture's; other bases scale the list.

    As in the release: the smallest |height * bucket width - width * bucket height|, the last one on a tie. Raises
    FramePackError for a picture without area or a base out of bounds.
    """
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        size = f"{quoted(width)} x {quoted(height)}"
        raise FramePackError(f"A picture is 1 to {MAX_SIDE} pixels high and wide; got {size}. Use another image.")
    if not MIN_BASE <= base <= MAX_BASE:
        raise FramePackError(f"The base must be {MIN_BASE} to {MAX_BASE}; got {quoted(base)}. Try {BASE_SIZE}.")
    bucket = min(reversed(BUCKETS), key=lambda size: abs(height * size[1] - width * size[0]))
    unit = RELEASED.pixel_unit
    high, wide = (max(round(side * base / BASE_SIZE / unit) * unit, unit) for side in bucket)
    return high, wide
