"""Which history a section sees where likeness decides: equations 3 to 5, true positions, pins, and what a plan says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from framepack.errors import FramePackError, PlanError
from framepack.packing.seeing import Turning, View
from framepack.packing.similarity import Chooser, likeness
from framepack.planning.choice import ESTIMATES, FIRST_STEPS, Choice, Estimate, refilled
from framepack.planning.json_fields import MAX_POSITION
from framepack.planning.pins import read_pins
from framepack.planning.plan import Plan
from framepack.planning.prompt_timeline import Stretch, with_prompts
from framepack.planning.section import Section
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.schedule.presets import PRESETS, TABLE_1
from framepack.units import RELEASED

FORWARD, INVERTED = "td_f16k4f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2f16k4_td"
LIKE = torch.empty(1, 16, 1, 4, 4)


def frames(num: int, seed: int = 0) -> dict[int | str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {i: torch.randn(1, 16, 1, 4, 4, generator=generator) for i in range(num)}


def last_choosing(schedule: str = FORWARD, num_lat_frames: int = 100, **options: object) -> Section:
    plan = make_plan(parse(schedule), num_lat_frames=num_lat_frames, **({"importance": "hybrid"} | options))
    return [section for section in plan.sections if section.choice][-1]


def choice_of(section: Section) -> Choice:
    assert section.choice is not None
    return section.choice


def test_likeness_is_the_mean_cosine_over_positions():
    estimate = torch.randn(1, 16, 3, 4, 4)
    known = [torch.randn(1, 16, 1, 4, 4) for _ in range(300)]
    wanted = [torch.cosine_similarity(frame, estimate, dim=1).mean().item() for frame in known]
    assert likeness(known, estimate) == pytest.approx(wanted, abs=1e-6)


def test_likeness_does_not_grow_with_the_size_and_is_one_for_the_same():
    still = torch.randn(1, 16, 1, 1, 1)
    for size in (4, 9):
        assert likeness([still.expand(-1, -1, 1, size, size)], still.expand(-1, -1, 5, size, size)) == pytest.approx(
            [1]
        )


@pytest.mark.parametrize("name", [*TABLE_1, *PRESETS])
def test_an_infinite_time_weight_sorts_exactly_by_time(name: str):
    schedule = parse(PRESETS[name].text if name in PRESETS else name)
    for options in ({}, {"start": False}, {"start": False, "no_start": "zero"}):
        plain = make_plan(schedule, num_lat_frames=91, **options)
        chosen = make_plan(schedule, num_lat_frames=91, importance="hybrid", time_weight=math.inf, **options)
        timeline = frames(91)
        for wanted, section in zip(plain.sections, chosen.sections, strict=True):
            chooser = Chooser.of(section, timeline)
            settled = section if chooser is None else chooser.chosen(torch.randn(1, 16, 9, 4, 4))
            assert replace(settled, needs=wanted.needs) == wanted


def test_equal_likeness_falls_back_on_time_even_where_exp_vanishes():
    choice = replace(choice_of(last_choosing()), time_weight=5.0)
    assert choice.ranked([0.5] * len(choice.candidates)) == list(choice.by_time())
    assert math.exp(-((len(choice.candidates) * choice.seconds) ** 2)) < 1e-30  # far beyond what float32 holds


def test_the_time_weight_is_lambda_of_equation_5():
    choice = choice_of(last_choosing())
    near, far = choice.candidates[-1], choice.candidates[0]
    likes = {frame: 0.0 for frame in choice.candidates} | {far: 0.5}
    gain = math.exp(-((4 / 30) ** 2))
    assert replace(choice, time_weight=0.4 / gain).ranked(likes)[0] == far
    assert replace(choice, time_weight=0.6 / gain).ranked(likes)[0] == near


def test_the_most_alike_fills_the_nearest_slot_and_every_frame_keeps_its_position():
    section = last_choosing(time_weight=0.0)
    choice, start = choice_of(section), section.makes[0][0]
    likes = {frame: -abs(frame - 40.0) for frame in choice.candidates}
    filled = refilled(section, choice, choice.ranked(likes))
    by_kernel = {str(context.kernel): context for context in filled.context}
    assert list(by_kernel["k1"].frames) == [40]
    assert set(by_kernel["k2"].frames) == {41, 39}
    for context in filled.context:
        assert list(context.frames) == sorted(context.frames)
        assert [f - p for f, p in zip(context.frames, context.positions, strict=True)] == [
            start - section.positions[0]
        ] * len(context.frames)
    assert filled.positions == section.positions
    assert filled.num_context_tokens(8, 8) == section.num_context_tokens(8, 8)


def test_what_is_not_chosen_is_the_tail():
    section = last_choosing("tc_f16k4f2k2f1k1_g9", time_weight=0.0)
    choice = choice_of(section)
    filled = refilled(section, choice, choice.ranked({f: -abs(f - 40.0) for f in choice.candidates}))
    seen = [frame for context in filled.context for frame in context.frames]
    assert sorted(seen) == list(choice.candidates)
    assert filled.context[0].tail == "tc"
    assert 90 in filled.context[0].frames


def test_inverted_sections_choose_among_the_frames_after_them():
    section = last_choosing(INVERTED, time_weight=0.0)
    choice = choice_of(section)
    assert choice.candidates == range(section.makes[0][1], 100)
    filled = refilled(section, choice, choice.ranked({f: float(f) for f in choice.candidates}))
    assert list(filled.context[0].frames) == [0]  # the start stays
    assert list(filled.context[1].frames) == [99]


def test_the_nearest_section_and_the_same_prompt_are_known_before_sampling():
    near = choice_of(last_choosing(estimate="nearest section"))
    assert near.reference == range(near.candidates.stop - 9, near.candidates.stop)
    plan = make_plan(parse(FORWARD), num_lat_frames=55, importance="similarity", estimate="same prompt")
    told = with_prompts(
        plan,
        (
            Stretch(start=0, stop=2.4, prompt="a"),
            Stretch(start=2.4, stop=5, prompt="b"),
            Stretch(start=5, stop=9, prompt="a"),
        ),
        30,
    )
    assert [s.prompt for s in told.sections] == ["a", "a", "b", "b", "a", "a"]
    assert [choice_of(s).reference for s in told.sections[2:]] == [
        range(10, 19),  # none has its prompt: the nearest
        range(19, 28),
        range(10, 19),
        range(37, 46),
    ]


def test_a_plan_keeps_its_choices_as_json():
    pins = read_pins("2-4s: 0-0.5s\nimage hero as k2", 30, RELEASED)
    plan = make_plan(parse(FORWARD), num_lat_frames=55, importance="hybrid", time_weight=math.inf, pins=pins)
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.slots >= {"hero"}
    assert '"importance":"hybrid"' in plan.to_json()


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("weight", [0.0, 2.5, float(MAX_POSITION), math.inf])
def test_a_choice_is_read_from_its_json_as_it_was(estimate: Estimate, weight: float):
    options = {"estimate": estimate, "time_weight": weight, "fps": 24.0}
    choice = choice_of(last_choosing(**options, pins=read_pins("0s\nimage hero as k2", 24, RELEASED)))
    assert (choice.estimate, choice.time_weight, choice.seconds) == (estimate, weight, 4 / 24)
    assert (choice.reference is None) == (estimate == FIRST_STEPS)
    assert len(choice.pinned) == 2
    assert Choice.from_dict(json.loads(json.dumps(choice.to_dict()))) == choice


def test_a_section_needs_every_section_that_it_may_choose_from():
    plan = make_plan(parse(FORWARD), num_lat_frames=100, importance="similarity")
    assert [list(section.needs) for section in plan.sections] == [list(range(i)) for i in range(len(plan.sections))]


def test_the_first_steps_see_the_nearest_frames_then_the_choice():
    section = last_choosing(time_weight=0.0)
    timeline = frames(100)
    seen = View(timeline=timeline, like=LIKE).seen(section)
    assert seen.late is not None
    turning = Turning(seen.history, seen.late, torch.linspace(1, 0, 11))
    assert not turning.turns(1.0)
    turning.saw(torch.cat([timeline[17]] * 9, 2))
    assert not turning.turns(0.9)
    assert turning.turns(0.8)
    assert torch.equal(turning.history[-1].latents, timeline[17])
    assert not turning.turns(0.7)


def test_by_time_pins_are_settled_in_the_plan():
    plan = make_plan(parse(FORWARD), num_lat_frames=100, pins=read_pins("10-13s: 0.5s as k1", 30, RELEASED))
    assert not any(section.choice for section in plan.sections)
    for section in plan.sections:
        (nearest,) = [c for c in section.context if str(c.kernel) == "k1"]
        late = section.makes[0][1] > 75
        assert list(nearest.frames) == ([4] if late else [section.makes[0][0] - 1])
        if late:
            assert nearest.positions[0] == section.positions[0] - (section.makes[0][0] - 4)


def test_a_pinned_stretch_leaves_the_slot_next_to_the_section():
    section = last_choosing(pins=read_pins("0-0.6s", 30, RELEASED))
    filled = refilled(section, choice_of(section), choice_of(section).by_time())
    contexts = {str(c.kernel): list(c.frames) for c in filled.context}
    assert contexts["k1"] == [section.makes[0][0] - 1]
    assert contexts["k2"] == [0, 1]
    assert {2, 3, 4} <= set(contexts["k4"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("yesterday", "is not understood"),
        ("3-2s", "ends before it begins"),
        ("0-9s", "has no room"),
        ("50s", "No section can see"),
        ("0s as k8", "has no room"),
    ],
)
def test_pins_that_cannot_be_are_named(line: str, says: str):
    with pytest.raises(PlanError, match=says):
        make_plan(parse(FORWARD), num_lat_frames=100, pins=read_pins(line, 30, RELEASED))


def test_a_batch_is_not_given_one_history():
    timeline = {i: torch.randn(2, 16, 1, 4, 4) for i in range(100)}
    with pytest.raises(PlanError, match="one video at a time"):
        Chooser.of(last_choosing(), timeline)


@pytest.mark.parametrize("fields", [{"estimate": "a guess"}, {"time_weight": -1.0}, {"time_weight": math.nan}])
def test_a_choice_out_of_bounds_is_rejected(fields: dict):
    with pytest.raises(FramePackError):
        make_plan(parse(FORWARD), num_lat_frames=100, importance="hybrid", **fields)


@pytest.mark.parametrize(
    "change", [{"slots": []}, {"slots": [99]}, {"candidates": [1]}, {"estimate": 3}, {"time_weight": "x"}, {"by": 1}]
)
def test_a_plan_with_a_broken_choice_is_rejected(change: dict):
    plan = make_plan(parse(FORWARD), num_lat_frames=55, importance="hybrid")
    data = plan.to_dict()
    data["sections"][-1]["choice"] |= change
    with pytest.raises(PlanError):
        Plan.from_json(json.dumps(data))
