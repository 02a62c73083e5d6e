"""Where latent frames lie in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from framepack.planning.request import PlanRequest
from framepack.planning.times import middle_frames, place_of
from framepack.planning.video import plan_video
from framepack.schedule.grammar import parse
from framepack.units import RELEASED, Geometry

FORWARD = "td_f16k4f2k2f1k1_g9"
HALF = Geometry(spatial=16, temporal=8, patch=1, channels=32)


@pytest.mark.parametrize("geometry", [RELEASED, HALF], ids=["4", "8"])
def test_the_first_latent_frame_is_one_frame_and_each_other_several(geometry: Geometry):
    plan = plan_video(PlanRequest(schedule=parse(FORWARD), num_lat_frames=28, geometry=geometry))
    assert place_of(plan, 0) == 0
    for latent in range(1, 28):
        assert place_of(plan, geometry.pixel_frames(latent)) == latent
    assert place_of(plan, plan.num_pix_frames) == 28


@pytest.mark.parametrize("geometry", [RELEASED, HALF], ids=["4", "8"])
def test_the_middle_of_a_section_lies_between_its_frames(geometry: Geometry):
    plan = plan_video(PlanRequest(schedule=parse(FORWARD), num_lat_frames=28, geometry=geometry))
    ends = [[geometry.pixel_frames(frame) for frame in section.makes[0]] for section in plan.sections]
    assert len(ends) == 3
    for middle, (start, stop) in zip(middle_frames(plan), ends, strict=True):
        assert middle == pytest.approx((start + stop - 1) / 2, abs=geometry.temporal / 2)


def test_sections_that_are_clips_lie_side_by_side():
    geometry = replace(RELEASED, sections_are_clips=True)
    plan = plan_video(PlanRequest(schedule=parse(FORWARD), num_lat_frames=27, geometry=geometry))
    assert [place_of(plan, frame) for frame in (0, 11, 33, 44, 66, 99)] == [0, 3, 9, 12, 18, 27]
    assert middle_frames(plan) == [16.5, 49.5, 82.5]
