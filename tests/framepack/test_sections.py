"""From a schedule and a length to a plan."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.errors import FramePackError, LatentSizeError, PlanError
from framepack.planning.gaps import Gap
from framepack.planning.orders import ORDERS, order_of
from framepack.planning.plan import Plan
from framepack.planning.prompts import to_data
from framepack.planning.request import Endpoint, Extension, PlanRequest, lat_frames_for
from framepack.planning.video import make_plan, plan_video
from framepack.schedule.grammar import count_tokens, parse
from framepack.units import RELEASED, Geometry, Kernel
from tests.names import ENDPOINT, INVERTED, TABLE_1, VANILLA

I2V = "f1k1_x_g9_f1k1f2k2f16k4_td"
F1 = "f1k1_x_f16k4f2k2f1k1_g9"
HALF = Geometry(spatial=16, temporal=8, patch=1, channels=32)


@pytest.mark.parametrize(("seconds", "sections", "frames"), [(1, 1, 37), (5, 4, 145), (60, 50, 1801)])
def test_lengths_are_the_references(seconds: float, sections: int, frames: int):
    plan = make_plan(parse(I2V), num_lat_frames=lat_frames_for(seconds, 30, parse(I2V)))
    assert len(plan.sections) == sections
    assert plan.num_pix_frames == frames


@pytest.mark.parametrize(
    ("sections", "paddings"),
    [(1, [0]), (2, [1, 0]), (4, [3, 2, 1, 0]), (5, [3, 2, 2, 1, 0]), (7, [3, 2, 2, 2, 2, 1, 0])],
)
def test_inverted_paddings_are_the_references(sections: int, paddings: list[int]):
    plan = make_plan(parse(I2V), num_lat_frames=1 + 9 * sections)
    assert [(s.positions[0] - 1) // 9 for s in plan.sections] == paddings
    for section, p in zip(plan.sections, paddings, strict=True):
        start, one, two, four = section.context
        assert section.positions == tuple(range(9 * p + 1, 9 * p + 10))
        assert (start.frames, start.positions) == (range(1), range(1))
        assert one.positions == range(9 * p + 10, 9 * p + 11)
        assert two.positions == range(9 * p + 11, 9 * p + 13)
        assert four.positions == range(9 * p + 13, 9 * p + 29)


def test_forward_positions_are_pinned_as_in_f1():
    for section in make_plan(parse(F1), num_lat_frames=64).sections:
        assert section.positions == tuple(range(20, 29))
        assert [c.positions[0] for c in section.context] == [0, 1, 17, 19]


def test_a_short_history_is_null_at_its_planned_position():
    first = make_plan(parse(I2V), num_lat_frames=37).sections[0]
    assert [f for c in first.context for f in c.frames] == [0] + [None] * 19


def test_an_end_image_is_context_alone():
    plan = make_plan(parse(I2V), num_lat_frames=37, end=True)
    assert plan.sections[0].context[1].frames == ("end",)
    assert all("end" not in c.frames for s in plan.sections[1:] for c in s.context)
    assert [a.slot for a in plan.anchors] == ["start"]


def test_without_a_start_image_one_section_makes_it():
    plan = make_plan(parse(I2V), num_lat_frames=37, start=False)
    assert plan.sections[0].makes == ((0, 1),)
    assert not plan.sections[0].context
    assert plan.num_pix_frames == 145


def test_the_endpoint_order_makes_both_ends_at_once():
    plan = make_plan(parse("td_f16k4f2k2f1k1_g9_x_f1k1"), num_lat_frames=37)
    assert plan.sections[0].makes == ((1, 10), (28, 37))
    assert [s.makes[0] for s in plan.sections[1:]] == [(10, 19), (19, 28)]
    assert all(s.context[-1].frames == range(28, 29) for s in plan.sections[1:])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(TABLE_1),
    st.integers(2, 120),
    st.booleans(),
    st.sampled_from([None, "released", "pinned", "true", "capped:2"]),
)
def test_every_frame_is_made_once_and_seen_only_after(name: str, length: int, start: bool, gap: str | None):
    plan = make_plan(parse(name), num_lat_frames=length, start=start, gap=gap)
    plan.check()
    made = [f for s in plan.sections for f in s.made] + [a.frame for a in plan.anchors]
    assert sorted(made) == list(range(length))
    assert Plan.from_json(plan.to_json()) == plan


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TABLE_1), st.integers(2, 90), st.booleans())
def test_what_is_ready_has_no_gap_and_is_all_at_the_end(name: str, length: int, start: bool):
    plan = make_plan(parse(name), num_lat_frames=length, start=start)
    there = {frame for anchor in plan.anchors for frame in anchor.frames}
    for section, num in zip(plan.sections, plan.ready(), strict=True):
        there |= set(section.made)
        assert set(range(num)) <= there
        assert num not in there
    assert num == length


def test_in_a_forward_order_every_section_is_ready_when_it_is_made():
    plan = make_plan(parse(F1), num_lat_frames=28)
    assert list(plan.ready()) == [10, 19, 28]
    assert list(make_plan(parse(I2V), num_lat_frames=28).ready()) == [1, 1, 28]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([n for n in TABLE_1 if "td" in n]), st.integers(20, 90))
def test_the_context_of_a_deleted_tail_costs_the_same_in_every_section(name: str, length: int):
    schedule = parse(name)
    full = count_tokens(schedule, 8, 8).context
    plan = make_plan(schedule, num_lat_frames=length)
    costs = [s.num_context_tokens(8, 8) for s in plan.sections]
    ends = {full - g for g in count_tokens(schedule, 8, 8).groups} | {full}  # the first pass makes the endpoint itself
    assert set(costs) <= ends


@pytest.mark.parametrize("names", [VANILLA, ENDPOINT, INVERTED], ids=["vanilla", "endpoint", "inverted"])
def test_positions_of_frames_never_collide_within_a_section(names):
    for name in names:
        for section in make_plan(parse(name), num_lat_frames=100).sections:
            seen = [p for c in section.context for f, p in zip(c.frames, c.positions, strict=True) if f is not None]
            every = seen + list(section.positions)
            assert len(every) == len(set(every)), name


def test_endpoints_with_images_are_part_of_the_video():
    plan = make_plan(parse(I2V), num_lat_frames=73, endpoints=[Endpoint(frame=36, slot="key", prompt="a blue circle")])
    assert {(a.slot, a.frame) for a in plan.anchors} == {("start", 0), ("key", 36)}
    assert plan.num_lat_frames == 73
    assert plan.sections[0].prompt == "a blue circle"


POINTS = [Endpoint(frame=40, prompt="blue"), Endpoint(frame=90, slot="key"), Endpoint(frame=140, prompt="red")]


def blocks_of(plan: Plan) -> list[set[int]]:
    """The frames that are known before the gaps are filled: the start, and each endpoint with its first section."""
    ends = [40, 90, 140]
    return [{0}, *({end, *range(end + 1, end + 10)} for end in ends)]


@pytest.mark.parametrize("name", [I2V, F1, "td_f16k4f2k2f1k1_g9_x_f1k1"])
@pytest.mark.parametrize("order", [None, "halved"])
def test_gaps_between_endpoints_do_not_depend_on_one_another(name: str, order: str | None):
    if order and name == F1:
        pytest.skip("a schedule that sees the past alone cannot fill from the middle")
    plan = make_plan(parse(name), num_lat_frames=200, endpoints=POINTS, order=order)
    known = set().union(*blocks_of(plan))
    gaps = [range(1, 40), range(50, 90), range(100, 140), range(150, 200)]
    filled = [s for s in plan.sections if not set(s.made) <= known]
    assert len(filled) >= 19
    for section in filled:
        (gap,) = [gap for gap in gaps if set(section.made) & set(gap)]
        assert set(section.made) <= set(gap)
        assert section.known <= set(gap) | {n for n in known if gap.start - 10 <= n < gap.stop + 10}


def test_a_gap_is_filled_inverted_towards_the_nearest_known_frame_on_its_left():
    plan = make_plan(parse(I2V), num_lat_frames=200, endpoints=POINTS)
    gap = [s for s in plan.sections if 50 <= s.makes[0][0] < 90]
    assert [s.makes for s in gap] == [((81, 90),), ((72, 81),), ((63, 72),), ((54, 63),), ((50, 54),)]
    assert all(s.context[0].frames == range(49, 50) for s in gap)
    assert gap[0].context[1].frames == range(90, 91)


def test_each_endpoint_tells_what_is_nearer_to_it_than_to_another():
    plan = make_plan(parse(I2V), num_lat_frames=200, endpoints=POINTS)
    for section in plan.sections:
        middle = sum(section.makes[0]) / 2
        nearest = min((0.5, 40.5, 90.5, 140.5), key=lambda at: abs(at - middle))
        assert section.prompt == {0.5: None, 40.5: "blue", 90.5: None, 140.5: "red"}[nearest]


@pytest.mark.timed
def test_a_thousand_endpoints_are_planned_in_little_time():
    points = [Endpoint(frame=9 * i, slot=f"key {i}", prompt=f"prompt {i}") for i in range(1, 1000)]
    began = time.process_time()
    plan = make_plan(parse("f1k1_x_g1_f1k1_td"), num_lat_frames=9001, endpoints=points)
    assert len({section.prompt for section in plan.sections}) == 1000
    assert time.process_time() - began < 4


def test_endpoints_may_come_in_any_order_and_number():
    assert make_plan(parse(I2V), num_lat_frames=200, endpoints=reversed(POINTS)) == make_plan(
        parse(I2V), num_lat_frames=200, endpoints=POINTS
    )
    many = [Endpoint(frame=20 * i, slot=f"key {i}") for i in range(1, 100)]
    plan = make_plan(parse(I2V), num_lat_frames=2000, endpoints=many)
    assert len(plan.anchors) == 100
    assert Plan.from_json(plan.to_json()) == plan


def test_halving_makes_the_middle_of_a_gap_first_and_then_each_half_on_its_own():
    plan = make_plan(parse(I2V), num_lat_frames=1 + 9 * 8, order="halved")
    assert plan.sections[0].makes == ((37, 46),)
    for section in plan.sections[1:]:
        half = range(0, 46) if section.makes[0][0] < 37 else range(37, 73)
        assert section.known <= set(half)


@pytest.mark.timed
@pytest.mark.parametrize("name", ["td_f16k4f2k2f1k1_g9", I2V, "td_f16k4f2k2f1k1_g9_x_f1k1"])
def test_a_thousand_sections_are_planned_in_less_than_a_second(name: str):
    began = time.process_time()
    plan = make_plan(parse(name), num_lat_frames=9001)
    text = plan.to_json()
    assert time.process_time() - began < 1
    assert len(plan.sections) >= 999
    assert Plan.from_json(text) == plan


@pytest.mark.timed
@pytest.mark.parametrize("tail", ["ta", "tc"])
def test_so_are_those_that_see_a_tail_of_all_the_others(tail: str):
    began = time.process_time()
    plan = make_plan(parse(f"{tail}_f16k4f2k2f1k1_g9"), num_lat_frames=9001)
    assert time.process_time() - began < 1
    assert plan.sections[-1].needs == range(999)


@pytest.mark.timed
def test_the_json_of_a_thousand_sections_with_a_tail_stays_linear():
    began = time.process_time()
    text = make_plan(parse("ta_f16k4f2k2f1k1_g9"), num_lat_frames=9001).to_json()
    assert len(text) < 600_000
    assert Plan.from_json(text).sections[-1].context[0].frames == range(9001 - 9 - 19)
    assert time.process_time() - began < 4


def test_planning_polls_for_an_interrupt_once_a_section():
    polled = []
    plan = plan_video(PlanRequest(schedule=parse(I2V), num_lat_frames=37), lambda: polled.append(1))
    assert len(polled) == len(plan.sections) == 4


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "plans" / "first").glob("*.json")), ids=lambda path: path.stem
)
def test_plans_of_earlier_versions_are_read_as_they_were_written(path: Path):
    """The format of version 0.1: every context's frames and positions as lists, its own positions."""
    written = json.loads(path.read_text())
    plan = Plan.from_json(path.read_text())
    assert len(plan.sections) == len(written["sections"])
    assert [a.to_dict() for a in plan.anchors] == written["anchors"]
    for section, before in zip(plan.sections, written["sections"], strict=True):
        assert [list(c.frames) for c in section.context] == [c["frames"] for c in before["context"]]
        assert [list(c.positions) for c in section.context] == [c["positions"] for c in before["context"]]
        assert [c.tail for c in section.context] == [c.get("tail") for c in before["context"]]
        assert [list(r) for r in section.makes] == before["makes"]
        assert [list(section.positions), list(section.needs)] == [before["positions"], before["needs"]]
        assert to_data(section.prompt) == before["prompt"]
    assert Plan.from_json(plan.to_json()) == plan


REQUESTS = st.builds(
    lambda seed, schedule, **options: (seed, schedule, options),
    st.integers(0, 3),
    st.sampled_from([I2V, F1]),
    num_lat_frames=st.integers(2, 300),
    start=st.booleans(),
    no_start=st.sampled_from(["section", "zero"]),
    order=st.sampled_from([None, "halved"]),
)


@settings(max_examples=150, deadline=None)
@given(REQUESTS)
def test_by_default_positions_stay_within_those_that_the_released_models_were_trained_on(request):
    seed, schedule, options = request
    options["order"] = options["order"] if schedule == I2V else None
    points = [Endpoint(frame=31 * i, slot=f"key {i}") for i in range(1, seed + 1) if 31 * i < options["num_lat_frames"]]
    plan = make_plan(parse(schedule), endpoints=points, **options)
    assert plan.highest <= {I2V: 55, F1: 28}[schedule]
    assert all(min(c.positions) >= 0 for s in plan.sections for c in s.context)
    assert order_of(parse(schedule)).beyond_training(plan.highest) is None


def test_positions_beyond_training_get_a_warning_with_both_numbers():
    plan = make_plan(parse(I2V), num_lat_frames=100, gap="true")
    assert plan.highest == 90 + 28
    assert all(number in ORDERS["inverted"].beyond_training(118) for number in ("118", "55"))
    assert all(number in ORDERS["vanilla"].beyond_training(29) for number in ("29", "28"))


@pytest.mark.parametrize("length", [100, 1000])
def test_a_forward_orders_positions_do_not_grow_with_the_video(length: int):
    for name in ("td_f16k4f2k2f1k1_g9", F1):
        assert make_plan(parse(name), num_lat_frames=length).highest <= 28


def test_the_endpoint_orders_default_gap_is_three_sections_within_what_was_trained():
    plan = make_plan(parse("td_f16k4f2k2f1k1_g9_x_f1k1"), num_lat_frames=100)
    both, second = plan.sections[:2]
    assert both.positions == (*range(19, 28), *range(47, 56))  # 19 of 27, so that the ending stops at 55
    assert second.positions == tuple(range(19, 28))
    assert second.context[-1].positions == range(55, 56)  # 27: three sections
    capped = make_plan(parse("td_f16k4f2k2f1k1_g9_x_f1k1"), num_lat_frames=100, gap="capped:3")
    assert capped.sections[0].positions == (*range(19, 28), *range(55, 64))
    assert ORDERS["endpoint"].rule == Gap(rule="capped", cap=3, limit=56)


@pytest.mark.parametrize("tail", ["ta", "tc"])
@pytest.mark.parametrize("gap", [None, "pinned", "released", "true", "capped:1"])
@pytest.mark.parametrize("groups", ["f16k4f2k2f1k1", "f1k1_x_f16k4f2k2f1k1", "f2k2_x"])
def test_a_past_tail_stands_before_the_groups_that_follow_it(tail: str, gap: str | None, groups: str):
    plan = make_plan(parse(f"{tail}_{groups}_g9"), num_lat_frames=100, gap=gap)
    section = plan.sections[-1]
    (found,) = [c for c in section.context if c.tail]
    others = [c for c in section.context if not c.tail]
    seen = [p for c in others for p in c.positions] + list(section.positions)
    assert not set(found.positions) & set(seen)
    assert max(found.positions) + 1 in seen
    frames = {f for c in others for f in c.frames}
    assert set(found.frames) | frames == set(range(91))
    assert not set(found.frames) & frames


@pytest.mark.parametrize("tail", ["ta", "tc"])
def test_an_inverted_tail_is_in_the_future_and_goes_through_the_outermost_kernel(tail: str):
    plan = make_plan(parse(f"f1k1_x_g9_f1k1f2k2f16k4_{tail}"), num_lat_frames=64)
    *_, last = plan.sections
    assert last.context[-1].tail == tail
    assert last.context[-1].kernel == Kernel.short(4)
    assert last.context[-1].frames == range(29, 64)
    assert last.context[-1].positions == range(29, 64)
    assert not any(c.tail for c in plan.sections[0].context)


def test_a_zero_latent_stands_at_the_lowest_position_and_in_no_tail():
    for tail in ("ta", "tc"):
        schedule = parse(f"{tail}_f2k2f1k1_g9")
        plan = make_plan(schedule, num_lat_frames=27, start=False, no_start="zero")
        assert plan.sections[0].context[0].positions == range(0, 2)
        assert all(f >= 0 for s in plan.sections for c in s.context if c.tail for f in c.frames)


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


@pytest.mark.parametrize("gap", ["capped", "capped:x", "capped:12345", "", "far", 17, None, ["true"]])
def test_an_unknown_gap_rule_is_rejected(gap):
    with pytest.raises(PlanError, match=re.escape(str(gap))):
        Gap.parse(gap)
    if gap is not None:
        with pytest.raises(PlanError):
            make_plan(parse(I2V), num_lat_frames=37, gap=gap)


def test_an_end_image_with_a_forward_schedule_is_rejected():
    with pytest.raises(PlanError, match=F1):
        make_plan(parse(F1), num_lat_frames=37, end=True)


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


@pytest.mark.parametrize("geometry", [RELEASED, HALF], ids=["released", "half"])
def test_a_plan_carries_its_backbones_geometry(geometry: Geometry):
    request = PlanRequest.lasting(5, 30, schedule=parse(I2V), geometry=geometry)
    plan = plan_video(request)
    assert plan.geometry == geometry
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.num_pix_frames == geometry.temporal * (plan.num_lat_frames - 1) + 1
    assert ("geometry" in plan.to_dict()) == (geometry != RELEASED)


def test_sections_that_are_clips_have_a_single_frame_each_first_latent():
    """Helios: 9 latent frames are 33 frames, at 24 a second."""
    clips = replace(RELEASED, sections_are_clips=True)
    request = PlanRequest.lasting(11, 24, schedule=parse(F1), start=False, no_start="zero", geometry=clips)
    plan = plan_video(request)
    assert [s.num_lat_frames for s in plan.sections] == [9] * 8
    assert plan.num_pix_frames == 8 * 33


@pytest.mark.parametrize(
    ("geometry", "value"),
    [(3, "3"), ({"spatial": 0}, "0"), ({"patch": 10**400}, "1000"), ({"channels": True}, "True"), ({"deep": 1}, "deep"),
     ({"sections_are_clips": 1}, "1")],
)  # fmt: skip
def test_a_geometry_out_of_bounds_is_rejected(geometry, value: str):
    data = make_plan(parse(I2V), num_lat_frames=10).to_dict() | {"geometry": geometry}
    with pytest.raises(FramePackError, match=value):
        Plan.from_json(json.dumps(data))


def slice_of(**changes: object) -> str:
    """A plan's JSON with changes to its second section."""
    data = make_plan(parse(I2V), num_lat_frames=37).to_dict()
    data["sections"][1] |= changes
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", "''"),
        (17, "17"),
        (None, "None"),
        (["plan"], "plan"),
        ("[]", "[]"),
        ("[" * 5000, "[["),
        ("9" * 5000, "999"),
        ('{"schedule": "td_f1k1_g9", "num_lat_frames": 2, "sections": []}', "none"),
        ('{"schedule": 3, "num_lat_frames": 2, "sections": []}', "3"),
        ('{"schedule": "td_f1k1_g9", "num_lat_frames": 1e9, "sections": []}', "1000000000.0"),
        ('{"schedule": "td_f1k1_g9", "num_lat_frames": 1e400, "sections": []}', "inf"),
        ('{"schedule": "td_f1k1_g9", "num_lat_frames": NaN, "sections": []}', "nan"),
        (slice_of(needs=[]), "section 0"),
        (slice_of(needs=[0, 1]), "section 1"),
        (slice_of(needs=[0, 3]), "section 3"),
        (slice_of(makes=[[20, 29]]), "28"),
        (slice_of(makes=[[19, 27]]), "8"),
        (slice_of(makes=[[10, 19]]), "latent frame 19"),
        (slice_of(context=[{"kernel": [1, 2, 2], "frames": {"start": 0, "stop": 10**6}, "positions": [0]}]), "1000000"),
        (slice_of(context=[{"kernel": [1, 2, 2], "frames": [27], "positions": [0]}]), "27"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_valid_plan_is_rejected(text, value: str):
    with pytest.raises(PlanError, match=re.escape(value)):
        Plan.from_json(text)


@pytest.mark.timed
def test_contexts_that_look_at_too_much_are_rejected_before_they_are_walked():
    wide = {"kernel": [1, 2, 2], "frames": {"start": 0, "stop": 10**6}, "positions": {"start": 0, "stop": 10**6}}
    began = time.process_time()
    with pytest.raises(PlanError, match="6000000"):
        Plan.from_json(slice_of(context=[wide] * 7))
    assert time.process_time() - began < 0.5


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
