"""Frames of a video, one at a time, and what several measures compute from the same frame.

Dims: t frames, h w pixels. Frames are ``h w 3``, RGB, uint8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingPackageError, VideoError

LONGEST = 512  # pixels; measures look at larger frames in this size, so that a measure costs the same at any resolution


def package(name: str, wanted_for: str) -> Any:
    """An optional package. Raises MissingPackageError with the command that installs it."""
    try:
        return import_module(name)
    except ImportError as fault:
        raise MissingPackageError(
            f"{wanted_for} needs the package {name.partition('.')[0]}, which is not installed. Install the measures' "
            "packages with: pip install '.[metrics]'"
        ) from fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A video that is read as it is iterated: frames per second, size, and the frames themselves, once."""

    name: str
    fps: float
    height: int
    width: int
    frames: Iterator[np.ndarray]


def open_clip(path: Path) -> Clip:
    """Open a video file. Raises VideoError if it is none, or MissingPackageError without PyAV."""
    av = package("av", "Reading a video")
    try:
        container = av.open(str(path))
    except (OSError, ValueError) as fault:
        raise VideoError(f"{path} does not open as a video ({fault}). Give a file such as video.mp4.") from fault
    if not container.streams.video:
        raise VideoError(f"{path} has no video in it. Give a file such as video.mp4.")
    stream = container.streams.video[0]

    def read() -> Iterator[np.ndarray]:
        with container:
            try:
                for frame in container.decode(stream):
                    yield frame.to_ndarray(format="rgb24")
            except (OSError, ValueError) as fault:
                raise VideoError(f"{path} is damaged ({fault}). Save the video again.") from fault

    fps = float(stream.average_rate or stream.guessed_rate or 30)
    return Clip(name=str(path), fps=fps, height=stream.height, width=stream.width, frames=read())


class Frame:
    """One frame with the frame before it and the first of the video; each derived picture is computed once."""

    def __init__(self, rgb: np.ndarray, previous: Frame | None = None):
        self.rgb = rgb
        self.previous = previous
        self.first: Frame = previous.first if previous else self

    @cached_property
    def small(self) -> np.ndarray:
        """The frame at no more than LONGEST pixels on its longer side."""
        height, width = self.rgb.shape[:2]
        scale = LONGEST / max(height, width)
        if scale >= 1:
            return self.rgb
        cv2 = package("cv2", "Measuring a video")
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        return cv2.resize(self.rgb, size, interpolation=cv2.INTER_AREA)

    @cached_property
    def lab(self) -> np.ndarray:
        """CIE Lab ``h w 3``: L 0 to 100, a and b about -128 to 127."""
        cv2 = package("cv2", "Measuring colour")
        return cv2.cvtColor(self.small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

    @cached_property
    def grey(self) -> np.ndarray:
        """Luma ``h w``, uint8."""
        cv2 = package("cv2", "Measuring motion")
        return cv2.cvtColor(self.small, cv2.COLOR_RGB2GRAY)

    @cached_property
    def flow(self) -> np.ndarray | None:
        """Optical flow ``h w 2`` from the frame before, in pixels of the small frame; None for the first."""
        if self.previous is None:
            return None
        cv2 = package("cv2", "Measuring motion")
        # One pixel of patch needs eight of picture: a smaller frame is padded by its border.
        low, high = self.previous.grey, self.grey
        pad = [(0, max(0, 32 - side)) for side in high.shape]
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow = dis.calc(np.pad(low, pad, "edge"), np.pad(high, pad, "edge"), None)
        return flow[: high.shape[0], : high.shape[1]]

    @cached_property
    def features(self) -> np.ndarray | None:
        """SIFT descriptors ``n 128`` of the frame; None where it has none."""
        cv2 = package("cv2", "Measuring identity")
        return cv2.SIFT_create().detectAndCompute(self.grey, None)[1]


def chained(frames: Iterable[np.ndarray]) -> Iterator[Frame]:
    """Frames as they are read; each knows the one before it, whose own predecessor is let go."""
    previous: Frame | None = None
    for rgb in frames:
        frame = Frame(rgb, previous)
        yield frame
        if previous is not None:
            previous.flow  # noqa: B018 - kept for the next frame, before what it is made from is let go
            previous.previous = None
        previous = frame
