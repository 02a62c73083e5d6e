"""A section against the video's start: what did not change gives 0, and each fault shows in its own number."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from framepack.errors import VideoError
from framepack.metrics.sections import Look, section_drift


def moving(step: int = 2, num: int = 9) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 255, (64, 96), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 3)[..., None].repeat(3, 2)
    return [np.roll(picture, step * index, 1) for index in range(num)]


def test_a_section_like_the_start_has_no_drift():
    found = section_drift(moving(), moving())
    assert list(found.to_dict().values()) == [0.0, 0.0, 0.0, 0.0]


def test_each_fault_shows_in_its_number():
    start = Look.of(moving())
    blurred = section_drift([cv2.GaussianBlur(f, (0, 0), 4) for f in moving()], start)
    flat = section_drift([(128 + 0.5 * (f.astype(float) - 128)).astype(np.uint8) for f in moving()], start)
    tinted = section_drift([np.clip(f + np.array([40, 0, 0]), 0, 255).astype(np.uint8) for f in moving()], start)
    slow = section_drift(moving(1), start)
    assert blurred.sharpness < -0.3
    assert flat.contrast == pytest.approx(-0.5, abs=0.1)
    assert tinted.colour > 5
    assert slow.motion == pytest.approx(-0.5, abs=0.15)


def test_what_has_no_value_is_none_and_no_frames_are_named():
    still = [moving()[0]]
    assert section_drift(still, moving()).motion is None
    assert section_drift(moving(), [np.full((32, 32, 3), 128, np.uint8)] * 2).sharpness is None
    with pytest.raises(VideoError, match="got none"):
        section_drift([], moving())
