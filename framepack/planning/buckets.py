"""Sizes that the released models were trained on, and the one that fits a picture best."""

from __future__ import annotations

from math import log

from ..errors import FramePackError
from ..units import PIXEL_UNIT

BASE_SIZE = 640
# Height and width of the released models' 14 buckets at 640.
BUCKETS = (
    *((416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640)),
    *((640, 608), (672, 576), (704, 544), (768, 512), (832, 480), (864, 448), (960, 416)),
)


def nearest_bucket(height: int, width: int, base: int = BASE_SIZE) -> tuple[int, int]:
    """Height and width of the bucket whose shape is nearest to a picture's; other bases scale the list.

    Raises FramePackError for a picture without area, or a base under 64.
    """
    if min(height, width) < 1 or not 64 <= base <= 4096:
        raise FramePackError(
            f"a picture of {width}x{height} pixels and a base of {base} came; expected a picture with area and a base "
            f"of 64 to 4096, such as {BASE_SIZE}"
        )
    wanted = log(width / height)
    bucket = min(BUCKETS, key=lambda size: abs(log(size[1] / size[0]) - wanted))
    high, wide = (max(round(side * base / BASE_SIZE / PIXEL_UNIT) * PIXEL_UNIT, PIXEL_UNIT) for side in bucket)
    return high, wide
