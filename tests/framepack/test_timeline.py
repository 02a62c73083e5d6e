"""The prompt timeline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import FramePackError, PlanError
from framepack.planning.plan import Plan
from framepack.planning.prompt_timeline import Stretch, blended_at, prompt_at, read, with_prompts
from framepack.planning.prompts import Blend, from_data
from framepack.planning.video import Endpoint, make_plan
from framepack.schedule.grammar import parse


def test_lines_are_stretches():
    text = "# first\n0-2.5s: up\n\n2.5 - 4: down: slowly\n4s: left\n"
    expected = [(0, 2.5, "up"), (2.5, 4, "down: slowly"), (4, 5, "left")]
    assert read(text, 5) == tuple(Stretch(start=a, stop=b, prompt=p) for a, b, p in expected)
    assert read("", 5) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("up", ["line 1", "does not read", "Expected 0-2.5s"]),
        ("0-2s: up\n1-3s: down", ["line 2", "1 s comes before 2 s"]),
        ("0-2s: up\n3-5s: down", ["line 2", "nothing is said of 2 to 3 s"]),
        ("1-2s: up", ["nothing is said of 0 to 1 s"]),
        ("0-0s: up", ["it ends at 0 s"]),
        ("0-7s: up\n7-9s: down", ["begins at 7 s, and the video is 5 s long"]),
    ],
)
def test_a_fault_names_its_line_and_time(text: str, words: list[str]):
    with pytest.raises(FramePackError) as caught:
        read(text, 5)
    for word in words:
        assert word in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_reads_or_is_refused(text: str):
    try:
        read(text, 5)
    except FramePackError as fault:
        assert "prompt timeline" in str(fault)


def test_each_section_takes_the_prompt_of_its_middle_and_endpoints_keep_theirs():
    schedule = parse("f1k1_x_g9_f1k1f2k2f16k4_td")
    stretches = read("0-2.4s: one\n2.4s: two", 4.83)
    plan = with_prompts(make_plan(schedule, num_lat_frames=37), stretches, 30)
    assert [s.prompt for s in plan.sections] == ["two", "two", "one", "one"]
    points = [Endpoint(frame=18, prompt="mine")]
    plan = with_prompts(make_plan(schedule, num_lat_frames=37, endpoints=points), stretches, 30)
    assert "mine" in {s.prompt for s in plan.sections}
    assert prompt_at((), 3) is None


def test_around_a_border_two_prompts_are_blended():
    stretches = read("0-2s: one\n2-4s: two\n4s: two", 6)
    assert blended_at(stretches, 2.0, 0.0) == "two"
    assert blended_at(stretches, 1.4, 1.0) == "one"
    assert blended_at(stretches, 1.75, 1.0) == Blend(before="one", after="two", weight=0.25)
    assert blended_at(stretches, 2.25, 1.0) == Blend(before="one", after="two", weight=0.75)
    assert blended_at(stretches, 4.0, 1.0) == "two"  # nothing changes there


def test_a_blend_is_part_of_the_plan_and_reads_back():
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37)
    told = with_prompts(plan, read("0-2.4s: one\n2.4s: two", 4.83), 30, blend=2.0)
    assert any(isinstance(section.prompt, Blend) for section in told.sections)
    assert Plan.from_json(told.to_json()) == told


@pytest.mark.parametrize(
    "prompt",
    [3, ["a"], {"before": "a"}, {"before": "a", "after": 2, "weight": 0.5}, "x" * 20_001]
    + [{"before": "a", "after": "b", "weight": weight} for weight in (0, 1, "0.5", True, float("nan"))],
)
def test_a_prompt_that_is_none_is_refused(prompt):
    with pytest.raises(PlanError, match="expected"):
        from_data(prompt)
