"""What a video is planned from, and its bounds."""

from __future__ import annotations

import math
import re

import pytest

from framepack.errors import LatentSizeError, PlanError
from framepack.planning.plan import Plan
from framepack.planning.request import Endpoint, Extension, PlanRequest, lat_frames_for
from framepack.planning.video import make_plan, plan_video
from framepack.schedule.grammar import parse
from framepack.units import RELEASED, Geometry

I2V = "f1k1_x_g9_f1k1f2k2f16k4_td"
F1 = "f1k1_x_f16k4f2k2f1k1_g9"


@pytest.mark.parametrize(("seconds", "sections", "frames"), [(1, 1, 37), (5, 4, 145), (60, 50, 1801)])
def test_lengths_are_the_references(seconds: float, sections: int, frames: int):
    plan = make_plan(parse(I2V), num_lat_frames=lat_frames_for(seconds, 30, parse(I2V)))
    assert len(plan.sections) == sections
    assert plan.num_pix_frames == frames


def test_planning_polls_for_an_interrupt_once_a_section():
    polled = []
    plan = plan_video(PlanRequest(schedule=parse(I2V), num_lat_frames=37), lambda: polled.append(1))
    assert len(polled) == len(plan.sections) == 4


@pytest.mark.parametrize("seconds", [0, -1, 36_000, math.nan, math.inf, 10**400])
def test_a_length_out_of_bounds_is_rejected(seconds: float):
    with pytest.raises(PlanError, match=re.escape(str(seconds)[:20])):
        lat_frames_for(seconds, 30, parse(I2V))


@pytest.mark.parametrize("fps", [0, -1, 241, math.nan, math.inf, 10**400])
def test_a_frame_rate_out_of_bounds_is_rejected(fps: float):
    with pytest.raises(PlanError, match=re.escape(str(fps)[:20])):
        lat_frames_for(5, fps, parse(I2V))


@pytest.mark.parametrize(
    ("seconds", "fps", "frame"),
    [(0, 30, 0), (1 / 30, 30, 1), (4 / 30, 30, 1), (5 / 30, 30, 2), (0.1, 30, 1), (2.5, 30, 19), (2.5, 24, 15)],
)
def test_a_time_is_in_the_latent_frame_that_holds_its_pixel_frame(seconds: float, fps: float, frame: int):
    assert RELEASED.latent_frame(seconds, fps) == frame


def test_an_end_image_with_a_forward_schedule_is_rejected():
    with pytest.raises(PlanError, match=F1):
        make_plan(parse(F1), num_lat_frames=37, end=True)


def test_an_end_image_stands_before_the_video_is_over_in_the_section_that_ends_it():
    points = [Endpoint(frame=12, slot="key"), Endpoint(frame=40)]
    plan = make_plan(parse("f1k1_x_g9_f2k2f16k4_td"), num_lat_frames=73, end=True, endpoints=points)
    (seen,) = [s for s in plan.sections if "end" in s.slots]
    assert seen.makes == ((64, 73),)
    assert seen.context[1].frames == ("end", None)
    assert seen.context[2].frames == (None,) * 16
    with pytest.raises(PlanError):
        make_plan(parse(I2V), num_lat_frames=11, end=True, endpoints=[Endpoint(frame=10, slot="key")])


def test_the_longest_video_and_the_fastest_and_slowest_rates_are_valid():
    assert lat_frames_for(1200, 30, parse(I2V)) == 9001
    assert lat_frames_for(1, 240, parse(I2V)) == 1 + 9 * 7
    assert lat_frames_for(36, 0.5, parse(I2V)) == 1 + 9
    assert lat_frames_for(1199, 30, parse("f1k1_x_g7_f1k1_td")) == 1 + 7 * 1285
    with pytest.raises(PlanError, match="1200"):
        lat_frames_for(1200.1, 30, parse(I2V))


FORWARDS = Extension(num_lat_frames=10, direction="forwards")
BACKWARDS = Extension(num_lat_frames=10, direction="backwards")


@pytest.mark.parametrize(
    ("schedule", "options", "begins", "num"),
    [
        (I2V, {}, "image", 37),
        (I2V, {"start": False}, "section", 37),
        (I2V, {"start": False, "no_start": "zero"}, "zero", 36),
        (I2V, {"no_start": "zero"}, "image", 37),
        (F1, {"extend": FORWARDS}, "video", 46),
        (F1, {"extend": FORWARDS, "start": False}, "video", 46),
        (F1, {"extend": FORWARDS, "start": False, "no_start": "zero"}, "video", 46),
        (I2V, {"extend": BACKWARDS}, "image", 47),
        (I2V, {"extend": BACKWARDS, "start": False, "no_start": "zero"}, "zero", 46),
        (I2V, {"geometry": Geometry(temporal=8)}, "image", 19),
    ],
)
def test_a_request_by_time_counts_only_what_is_generated(schedule: str, options: dict, begins: str, num: int):
    request = PlanRequest.lasting(5, 30, schedule=parse(schedule), **options)
    assert (request.begins, request.num_lat_frames) == (begins, num)
    assert request.schedule == parse(schedule)
    assert request == PlanRequest(schedule=parse(schedule), num_lat_frames=num, **options)


def test_key_frames_on_every_frame_leave_nothing_to_generate():
    points = [Endpoint(frame=i, slot=f"key {i}") for i in range(1, 10)]
    with pytest.raises(PlanError, match="10"):
        make_plan(parse(I2V), num_lat_frames=10, endpoints=points)
    assert len(make_plan(parse(I2V), num_lat_frames=11, endpoints=points).sections) == 1


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"num_lat_frames": 10**400}, "1000"),
        ({"num_lat_frames": 9002}, "9002"),
        ({"num_lat_frames": 0}, "0"),
        ({"num_lat_frames": 1}, "1"),
        ({"num_lat_frames": 37, "no_start": "none"}, "none"),
        ({"num_lat_frames": 37, "extend": Extension(num_lat_frames=37, direction="backwards")}, "37"),
    ],
)
def test_a_request_out_of_bounds_is_rejected(options, value: str):
    with pytest.raises(PlanError, match=value):
        PlanRequest(schedule=parse(I2V), **options)


def test_a_size_off_the_backbones_unit_is_rejected():
    with pytest.raises(LatentSizeError, match="got 100"):
        PlanRequest(schedule=parse(I2V), num_lat_frames=37, height=64, width=100)
    wide = Geometry(spatial=25, patch=4)
    assert PlanRequest(schedule=parse(I2V), num_lat_frames=37, height=200, width=100, geometry=wide).width == 100


def test_an_unknown_direction_is_rejected():
    with pytest.raises(PlanError, match="sideways"):
        Extension(num_lat_frames=3, direction="sideways")


def test_a_video_is_extended_forwards_after_its_own_frames():
    plan = make_plan(parse(F1), num_lat_frames=10 + 18, extend=Extension(num_lat_frames=10, direction="forwards"))
    assert [a.to_dict() for a in plan.anchors] == [{"slot": "video", "frame": 0, "num_lat_frames": 10}]
    assert [s.makes for s in plan.sections] == [((10, 19),), ((19, 28),)]
    seen = [f for c in plan.sections[0].context for f in c.frames]
    assert seen == [0, *[None] * 9, *range(10)]
    assert Plan.from_json(plan.to_json()) == plan


def test_a_video_is_extended_backwards_before_its_own_frames():
    extend = Extension(num_lat_frames=10, direction="backwards")
    plan = make_plan(parse(I2V), num_lat_frames=18 + 10, start=False, no_start="zero", extend=extend)
    assert [a.to_dict() for a in plan.anchors] == [{"slot": "video", "frame": 18, "num_lat_frames": 10}]
    assert [s.makes for s in plan.sections] == [((9, 18),), ((0, 9),)]
    seen = [f for c in plan.sections[0].context for f in c.frames]
    assert seen == [None, *range(18, 28), *[None] * 9]


def test_a_start_image_and_a_video_to_lead_to_go_together():
    extend = Extension(num_lat_frames=5, direction="backwards")
    plan = make_plan(parse(I2V), num_lat_frames=1 + 9 + 5, extend=extend)
    assert {a.slot for a in plan.anchors} == {"start", "video"}
    assert [s.makes for s in plan.sections] == [((1, 10),)]


def test_a_choice_knows_how_long_a_latent_frame_lasts():
    for fps in (24, 30):
        plan = plan_video(PlanRequest.lasting(5, fps, schedule=parse(F1), importance="hybrid"))
        assert {s.choice.seconds for s in plan.sections if s.choice} == {4 / fps}


@pytest.mark.parametrize(("schedule", "direction"), [(F1, "backwards"), (I2V, "forwards")])
def test_a_direction_that_a_schedule_cannot_take_is_rejected(schedule: str, direction: str):
    with pytest.raises(PlanError, match=schedule):
        make_plan(parse(schedule), num_lat_frames=28, extend=Extension(num_lat_frames=10, direction=direction))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((-1.0,), "-1 s"),
        ((9.0,), "9 s"),
        ((2.0, 2.0), "at 2 s and 2 s, with 0 "),
        ((2.0, 2.8), "at 2 s and 2.8 s, with 5 "),
        ((0.5,), "at latent frame 0 and 0.5 s, with 3 "),
    ],
)
def test_an_endpoint_that_cannot_be_is_named_by_its_time(seconds, words: str):
    points = [Endpoint(frame=RELEASED.latent_frame(t, 30), seconds=t) for t in seconds]
    with pytest.raises(PlanError, match=words):
        make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37, endpoints=points)
