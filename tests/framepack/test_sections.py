"""From a schedule and a length to a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.planning.pins import read_pins
from framepack.planning.plan import Plan
from framepack.planning.request import Endpoint
from framepack.planning.video import make_plan
from framepack.schedule.grammar import count_tokens, parse
from framepack.units import RELEASED
from tests.growth import growth
from tests.names import TABLE_1

I2V = "f1k1_x_g9_f1k1f2k2f16k4_td"
F1 = "f1k1_x_f16k4f2k2f1k1_g9"


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
    def planned(num: int) -> None:
        points = [Endpoint(frame=9 * i, slot=f"key {i}", prompt=f"prompt {i}") for i in range(1, num)]
        plan = make_plan(parse("f1k1_x_g1_f1k1_td"), num_lat_frames=9 * num + 1, endpoints=points)
        assert len({section.prompt for section in plan.sections}) == num

    assert growth(planned, 125, 1000) < 24  # linear: 8; quadratic: 64


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


def pinned(text: str) -> dict[str, Any]:
    return {"pins": read_pins(text, 30, RELEASED)}


LONG: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "vanilla": ("td_f16k4f2k2f1k1_g9", lambda num: {}),
    "inverted": (I2V, lambda num: {}),
    "endpoint first": ("td_f16k4f2k2f1k1_g9_x_f1k1", lambda num: {}),
    "a tail": ("ta_f16k4f2k2f1k1_g9", lambda num: {}),
    "a tail of clusters": ("tc_f16k4f2k2f1k1_g9", lambda num: {}),
    "a tail with a hole": ("ta_f16k4f2k2f1k1_g9", lambda num: pinned("1-2s")),
    "chosen by latents": ("td_f1k64_g1", lambda num: {"importance": "hybrid", "num_lat_frames": num // 9}),
    "needs with a hole": (
        "td_f1k64_g1",
        lambda num: {
            "importance": "hybrid",
            "num_lat_frames": num // 9,
            "endpoints": [Endpoint(frame=num // 20, prompt="a")],
        },
    ),
}


@pytest.mark.timed
@pytest.mark.parametrize("kind", LONG)
def test_a_plan_grows_with_its_sections_in_time_and_in_text(kind: str):
    """A section may look at all that was made before it, yet a plan of eight times as many is not 64 times as long."""
    name, options = LONG[kind]

    def planned(num: int) -> str:
        plan = make_plan(parse(name), **{"num_lat_frames": num, **options(num)})
        text = plan.to_json()
        assert Plan.from_json(text) == plan
        return text

    short, long = 1126, 9001
    assert len(planned(long)) < 12 * len(planned(short))
    assert growth(planned, short, long) < 32  # linear: 8; quadratic: 64


@pytest.mark.parametrize("tail", ["ta", "tc"])
def test_a_section_with_a_tail_needs_all_sections_before_it(tail: str):
    plan = make_plan(parse(f"{tail}_f16k4f2k2f1k1_g9"), num_lat_frames=9001)
    assert plan.sections[-1].needs == range(999)
