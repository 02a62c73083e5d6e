"""The geometry of latents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import FramePackError, LatentSizeError
from framepack.schedule.grammar import count_tokens, parse
from framepack.schedule.tails import TAILS, tail_of
from framepack.units import RELEASED, Geometry, Kernel
from tests.names import TABLE_1

HALF = Geometry(spatial=16, temporal=8, patch=1, channels=32)


@pytest.mark.parametrize("name", TABLE_1)
def test_kernels_count_patches_so_that_tokens_are_the_same_wherever_a_patch_is_16_pixels(name: str):
    size = 480, 832
    found = [count_tokens(parse(name), *g.latent_grid(*size), g.patch) for g in (RELEASED, HALF)]
    assert found[0] == found[1]
    assert found[0].generated == parse(name).generate * 30 * 52


def test_the_latents_under_a_kernel_follow_from_the_patch():
    assert RELEASED.latents(Kernel.short(4)) == (4, 8, 8)
    assert HALF.latents(Kernel.short(4)) == (4, 4, 4)
    assert HALF.latents(Kernel(2, 2, 16)) == (2, 1, 8)
    assert Kernel(4, 8, 16).patches == (4, 4, 8)


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_tokens_are_whole_kernels_that_cover_the_grid(k: int, num: int, height: int, width: int, patch: int):
    t, h, w = (-(-size // (k * side)) for size, side in ((num, 1), (height, patch), (width, patch)))
    assert Kernel.short(k).num_tokens(num, height, width, patch) == t * h * w
    assert Geometry(patch=patch).num_tokens(Kernel.short(k), num, height, width) == t * h * w


def test_a_token_of_a_tail_averages_all_positions_that_it_stands_for():
    kernel = Kernel.short(4)
    assert TAILS["ta"].cell(kernel, 30) == (4, 4 * 32, 4 * 32)
    assert TAILS["ta"].cell(kernel, 30, patch=1) == (4, 4 * 16, 4 * 16)
    assert TAILS["tc"].cell(kernel, 30) == (30, 4, 4)
    assert tail_of(None).cell(kernel, 30) == (4, 4, 4)


def test_a_clip_has_one_frame_and_then_as_many_as_time_is_compressed():
    assert [RELEASED.pixel_frames(n) for n in (0, 1, 2, 37)] == [0, 1, 5, 145]
    assert [HALF.pixel_frames(n) for n in (0, 1, 2, 37)] == [0, 1, 9, 289]
    assert RELEASED.section_frames(9) == 36
    assert Geometry(sections_are_clips=True).section_frames(9) == 33


@pytest.mark.parametrize(("seconds", "num"), [(0.01, 1), (1, 1), (5, 4), (60, 50)])
def test_sections_are_the_nearest_whole_number(seconds: float, num: int):
    assert RELEASED.num_sections(seconds, 30, 9) == num


@pytest.mark.parametrize(
    ("geometry", "pixels", "tries"),
    [
        (RELEASED, 100, "96 or 112"),
        (RELEASED, 0, "Try 16."),
        (RELEASED, -5, "Try 16."),
        (RELEASED, 8193, "Try 8192."),
        (RELEASED, 10**400, "Try 8192."),
        (Geometry(spatial=32, patch=1), 100, "96 or 128"),
    ],
)
def test_a_size_off_the_unit_is_rejected_with_the_nearest_ones(geometry: Geometry, pixels: int, tries: str):
    for size, name in (((pixels, 64), "Height"), ((64, pixels), "Width")):
        with pytest.raises(LatentSizeError, match=f"{name}.*{geometry.pixel_unit}.*{str(pixels)[:9]}.*{tries}"):
            geometry.latent_grid(*size)


@pytest.mark.parametrize(("h", "w", "t"), [(3, 2, 1), (2, 5, 1), (2, 2, 0), (0, 2, 1)])
def test_a_kernel_of_half_a_patch_is_rejected(t: int, h: int, w: int):
    with pytest.raises(FramePackError, match=rf"\({t}, {h}, {w}\)"):
        Kernel(t, h, w)


@given(st.integers(1, 100), st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 2, 4]))
def test_a_tails_tokens(num: int, height: int, width: int, patch: int):
    kernel, side = Kernel.short(4), 16 * patch
    assert TAILS["td"].num_tokens(kernel, num, height, width, patch) == 0
    assert TAILS["tc"].num_tokens(kernel, num, height, width, patch) == kernel.num_tokens(1, height, width, patch)
    pooled = kernel.num_tokens(num, -(-height // side), -(-width // side), patch)
    assert TAILS["ta"].num_tokens(kernel, num, height, width, patch) == pooled
    assert all(tail.num_tokens(kernel, 0, height, width, patch) == 0 for tail in TAILS.values())
