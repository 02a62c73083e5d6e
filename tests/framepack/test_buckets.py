"""Sizes to train and sample at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import FramePackError
from framepack.planning.buckets import BUCKETS, nearest_bucket


def test_the_references_buckets():
    assert len(BUCKETS) == 14
    assert nearest_bucket(720, 1280) == (480, 832)
    assert nearest_bucket(1000, 1000) in ((608, 640), (640, 608))


@given(st.integers(16, 5000), st.integers(16, 5000), st.sampled_from([320, 480, 640, 960]))
def test_any_picture_has_a_size_in_units_of_16_of_about_the_bases_area(height: int, width: int, base: int):
    high, wide = nearest_bucket(height, width, base)
    assert high % 16 == wide % 16 == 0
    assert 0.85 < high * wide / base**2 < 1.15


@pytest.mark.parametrize(("height", "width", "base"), [(0, 5, 640), (5, 5, 0)])
def test_what_is_no_picture_is_refused(height: int, width: int, base: int):
    with pytest.raises(FramePackError, match="expected"):
        nearest_bucket(height, width, base)
