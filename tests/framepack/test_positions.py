"""Positions of sections, and the gaps between them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.errors import PlanError
from framepack.planning.gaps import Gap
from framepack.planning.orders import ORDERS, order_of
from framepack.planning.request import Endpoint
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.units import Kernel
from tests.names import ENDPOINT, INVERTED, VANILLA

I2V = "f1k1_x_g9_f1k1f2k2f16k4_td"
F1 = "f1k1_x_f16k4f2k2f1k1_g9"


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


@pytest.mark.parametrize("names", [VANILLA, ENDPOINT, INVERTED], ids=["vanilla", "endpoint", "inverted"])
def test_positions_of_frames_never_collide_within_a_section(names):
    for name in names:
        for section in make_plan(parse(name), num_lat_frames=100).sections:
            seen = [p for c in section.context for f, p in zip(c.frames, c.positions, strict=True) if f is not None]
            every = seen + list(section.positions)
            assert len(every) == len(set(every)), name


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


@pytest.mark.parametrize("gap", ["capped", "capped:x", "capped:12345", "", "far", 17, None, ["true"]])
def test_an_unknown_gap_rule_is_rejected(gap):
    with pytest.raises(PlanError, match=re.escape(str(gap))):
        Gap.parse(gap)
    if gap is not None:
        with pytest.raises(PlanError):
            make_plan(parse(I2V), num_lat_frames=37, gap=gap)
