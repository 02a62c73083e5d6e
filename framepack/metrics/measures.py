"""What is measured: a name, a unit, and a function of a frame. A new measure is a new entry of MEASURES.

The paper's own measures (section 4.3.1) use trained predictors that are downloaded. These stand in for them with what
packages carry: BRISQUE for clarity, optical flow for motion and dynamic, SIFT matches for identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .frames import Frame, package

NAN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measure of each frame. `of` gives NaN where a frame has no value; `seconds` apart are the frames measured."""

    name: str
    unit: str
    about: str
    of: Callable[[Frame], float]
    seconds: float = 0.0  # 0: every frame


@cache
def _brisque() -> Any:
    base = package("brisque", "The measure clarity").BRISQUE

    class Flat(base):  # type: ignore[misc, valid-type]
        """With features as one flat array, which NumPy 2.4 asks for."""

        def scale_features(self, features: Any) -> Any:
            return super().scale_features(np.concatenate([np.ravel(feature) for feature in features]))

    return Flat(url=False)


def _clarity(frame: Frame) -> float:
    grey = frame.grey
    if min(grey.shape) < 16 or grey.max() == grey.min():
        return NAN  # BRISQUE fits a distribution to local contrast; a flat picture has none
    return float(_brisque().score(frame.small))


def _sharpness(frame: Frame) -> float:
    cv2 = package("cv2", "The measure sharpness")
    return float(cv2.Laplacian(frame.grey, cv2.CV_32F).std())


def _brightness(frame: Frame) -> float:
    return float(frame.lab[..., 0].mean())


def _contrast(frame: Frame) -> float:
    return float(frame.lab[..., 0].std())


def _saturation(frame: Frame) -> float:
    return float(np.hypot(frame.lab[..., 1], frame.lab[..., 2]).mean())


def _colour(frame: Frame) -> float:
    """Distance of mean colours, CIE 1976."""
    return float(np.linalg.norm(frame.lab.mean((0, 1)) - frame.first.lab.mean((0, 1))))


def _dynamic(frame: Frame) -> float:
    if frame.flow is None:
        return NAN
    return float(100 * np.linalg.norm(frame.flow, axis=-1).mean() / math.hypot(*frame.grey.shape))


def _smoothness(frame: Frame) -> float:
    before = frame.previous.flow if frame.previous else None
    if frame.flow is None or before is None:
        return NAN
    change = np.linalg.norm(frame.flow - before, axis=-1).mean()
    return float(1 / (1 + change))


def _identity(frame: Frame) -> float:
    wanted, found = frame.first.features, frame.features
    if wanted is None:
        return NAN
    if found is None or len(found) < 2:
        return 0.0
    cv2 = package("cv2", "The measure identity")
    pairs = cv2.BFMatcher().knnMatch(wanted, found, k=2)
    return sum(best.distance < 0.75 * second.distance for best, second in pairs) / len(wanted)  # Lowe's ratio


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            name="clarity", unit="BRISQUE", about="noise, blur and artifacts; lower is better", of=_clarity, seconds=0.5
        ),
        Measure(name="sharpness", unit="levels", about="deviation of the Laplacian", of=_sharpness),
        Measure(name="brightness", unit="L*", about="mean lightness, 0 to 100", of=_brightness),
        Measure(name="contrast", unit="L*", about="deviation of the lightness", of=_contrast),
        Measure(name="saturation", unit="Lab", about="mean chroma", of=_saturation),
        Measure(name="colour", unit="dE76", about="distance of the mean colour to the first frame's", of=_colour),
        Measure(name="dynamic", unit="% of the diagonal", about="mean optical flow per frame", of=_dynamic),
        Measure(
            name="smoothness", unit="0 to 1", about="1 where the optical flow stays the same, less where it jumps",
            of=_smoothness,
        ),
        Measure(
            name="identity", unit="0 to 1", about="share of the first frame's SIFT features that are found again",
            of=_identity, seconds=0.1,
        ),
    )
}  # fmt: skip

DEFAULT = "sharpness,brightness,contrast,saturation,colour,dynamic,smoothness,identity"  # those that need OpenCV alone
