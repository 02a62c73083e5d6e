"""The least memory of a section and a plan, and what is said to fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from framepack.errors import TooLittleMemoryError
from framepack.planning.memory import GB, Work, check_plan, check_work
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse

PLAN = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37, height=480, width=832)
SECTION = max(PLAN.sections, key=lambda s: s.num_context_tokens(60, 104))
RELEASED = Work(section=SECTION, height=60, width=104, model_width=3072, itemsize=2, matrix=3072 * 6 * 3072 * 2)


def test_the_released_model_at_480p_takes_less_than_a_gigabyte():
    assert 0.6e9 < RELEASED.least < 1e9  # peers run it in 6 GB
    check_work(RELEASED, RELEASED.least)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25])
def test_all_that_is_said_to_fit_fits_and_the_next_larger_does_not(share: float):
    there = int(RELEASED.least * share)
    with pytest.raises(TooLittleMemoryError, match=r"9 latent frames at 832x480 needs at least 0\.7 GB") as fault:
        check_work(RELEASED, there)
    said = str(fault.value)
    assert f"only {there / GB:.1f} GB is available" in said

    def frames(num: int) -> Work:
        section = replace(SECTION, makes=((0, num),), positions=tuple(range(num)))
        return replace(RELEASED, section=section)

    if found := re.search(r"sections of (\d+) latent frames", said):
        assert frames(int(found[1])).least <= there < frames(int(found[1]) + 1).least
    width, height = map(int, re.search(r"a size of (\d+)x(\d+)", said).groups())
    assert width % 16 == height % 16 == 0
    assert width / height == pytest.approx(832 / 480, rel=0.1)
    check_work(replace(RELEASED, height=height // 8, width=width // 8), there)
    larger = replace(RELEASED, height=height // 8 + 2, width=int((height / 8 + 2) * 832 / 480) // 2 * 2)
    assert larger.least > there
    assert "precision" not in said


def test_padding_to_whole_kernels_counts():
    """64 tokens, but 4096 frames of 128 x 128 latents before they become tokens."""
    plan = make_plan(parse("f4096k64h128w128_g9"), num_lat_frames=10, height=64, width=64)
    work = replace(RELEASED, section=plan.sections[0], height=8, width=8)
    assert work.section.num_context_tokens(8, 8) == 64
    assert work.least == 4096 * 128 * 128 * 16 * 2
    with pytest.raises(TooLittleMemoryError, match="2.1 GB"):
        check_work(work, 10**9)


def test_padding_follows_the_grid_and_the_patch():
    context = make_plan(parse("f5k2_g9"), num_lat_frames=10).sections[0].context[0]
    assert context.num_padded(6, 20) == 6 * 8 * 20
    assert context.num_padded(6, 20, patch=1) == 6 * 6 * 20
    assert context.num_padded(3, 7, patch=3) == 6 * 6 * 12


@pytest.mark.parametrize(("num_bytes", "shown"), [(10**8, "0.1 GB"), (99_900_000, "99.9 MB"), (10**10, "10.0 GB")])
def test_amounts_are_in_gigabytes_from_a_tenth_on(num_bytes: int, shown: str):
    work = replace(RELEASED, matrix=10**11)
    with pytest.raises(TooLittleMemoryError, match=f"only {shown} is"):
        check_work(work, num_bytes)


def fitting(work: Work, there: int) -> str:
    with pytest.raises(TooLittleMemoryError) as fault:
        check_work(work, there)
    return str(fault.value)


def test_the_smallest_and_the_largest_things_that_fit_are_offered():
    bare = replace(RELEASED, matrix=0)
    one = replace(SECTION, makes=((0, 1),), positions=(0,), context=())
    least = replace(bare, section=replace(SECTION, context=()))
    assert "sections of 8 latent frames" in fitting(least, least.least - 1)
    assert "sections of 1 latent frames" in fitting(least, replace(bare, section=one).least)
    assert "latent frames," not in fitting(least, replace(bare, section=one).least - 1).partition("What fits")[2]
    assert "a size of 800x464" in fitting(bare, replace(bare, height=58, width=100).least)
    assert "a size of 16x16" in fitting(bare, replace(bare, height=2, width=2).least)
    assert "a size" not in fitting(bare, replace(bare, height=2, width=2).least - 1)


def test_half_the_precision_is_offered_where_it_would_do():
    wide = replace(RELEASED, itemsize=4, matrix=RELEASED.matrix * 2)
    assert fitting(wide, RELEASED.least).endswith("half precision (weight_dtype bf16).")
    assert "precision" not in fitting(wide, RELEASED.least - 1)
    assert "precision" not in fitting(replace(RELEASED, itemsize=2), RELEASED.least - 1)
    with pytest.raises(TooLittleMemoryError, match="Free memory, or use another device"):
        check_work(wide, 1)


def test_a_plan_whose_latents_have_no_place_says_how_many_sections_do():
    per_frame = 16 * 4 * 60 * 104
    check_plan(PLAN, 37 * per_frame)
    with pytest.raises(TooLittleMemoryError, match=r"of 4 sections .* What fits: 2 sections \(73 frames\)"):
        check_plan(PLAN, 20 * per_frame)
    with pytest.raises(TooLittleMemoryError, match="Free memory"):
        check_plan(PLAN, 100)


@pytest.mark.parametrize(("num", "fits"), [(9, None), (10, 1), (18, 1), (19, 2), (36, 3)])
def test_sections_and_a_start_frame_fit_into_so_many_latent_frames(num: int, fits: int | None):
    with pytest.raises(TooLittleMemoryError) as fault:
        check_plan(PLAN, num * 16 * 4 * 60 * 104)
    frames = f"{fits} sections ({36 * fits + 1} frames)" if fits else "Free memory"
    assert frames in str(fault.value)


def test_latents_that_fit_exactly_leave_no_room_for_images_but_for_the_video():
    with pytest.raises(TooLittleMemoryError, match="FramePackVideo"):
        check_plan(PLAN, 37 * 16 * 4 * 60 * 104, images=True)


def test_images_that_have_no_place_are_better_saved_while_they_are_decoded():
    latents, images = 37 * 16 * 4 * 60 * 104, 145 * 480 * 832 * 3 * 4
    check_plan(PLAN, latents + images, images=True)
    with pytest.raises(TooLittleMemoryError, match="3 sections .*, or vae disconnected .* FramePackVideo"):
        check_plan(PLAN, latents + images - 1, images=True)
    with pytest.raises(TooLittleMemoryError, match="Free memory"):
        check_plan(PLAN, latents - 1, images=True)
