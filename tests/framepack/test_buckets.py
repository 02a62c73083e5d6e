"""Sizes to train and sample at."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from framepack.errors import FramePackError
from framepack.planning.buckets import BUCKETS, nearest_bucket


def test_the_references_buckets():
    assert len(BUCKETS) == 14
    assert nearest_bucket(720, 1280) == (480, 832)
    assert nearest_bucket(1000, 1000) == (640, 608)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_bucket_is_the_releases_the_last_of_equally_near_ones(height: int, width: int):
    best, found = None, None
    for high, wide in BUCKETS:
        far = abs(height * wide - width * high)
        if best is None or far <= best:
            best, found = far, (high, wide)
    assert nearest_bucket(height, width) == found


@given(st.integers(16, 5000), st.integers(16, 5000), st.sampled_from([320, 480, 640, 960]))
@example(1, 100_000, 640)
def test_any_picture_has_a_size_in_units_of_16_of_about_the_bases_area(height: int, width: int, base: int):
    high, wide = nearest_bucket(height, width, base)
    assert high % 16 == wide % 16 == 0
    assert 0.85 < high * wide / base**2 < 1.15


def test_the_bounds_are_valid_themselves():
    assert nearest_bucket(1, 1, 64) == (64, 64)
    assert nearest_bucket(10**6, 10**6, 4096)[0] == 4096
    assert nearest_bucket(10**6, 1) == (960, 416)
    assert nearest_bucket(1, 10**6) == (416, 960)


@pytest.mark.parametrize(
    ("height", "width", "base", "value"),
    [
        (0, 5, 640, "5 x 0"),
        (5, 10**400, 640, "1000"),
        (10**6 + 1, 5, 640, "1000001"),
        (5, 10**6 + 1, 640, "1000001"),
        (5, 0, 640, "0 x 5"),
        (5, 5, 63, "63"),
        (5, 5, 4097, "4097"),
        (5, 5, float("nan"), "nan"),
    ],
)
def test_a_picture_without_area_and_a_base_out_of_bounds_are_rejected(height, width, base, value: str):
    with pytest.raises(FramePackError, match=value):
        nearest_bucket(height, width, base)
