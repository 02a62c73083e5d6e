"""The prompt timeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import FramePackError, PlanError
from framepack.planning.plan import Plan
from framepack.planning.prompt_timeline import Stretch, TimelineError, blended_at, prompt_at, read, with_prompts
from framepack.planning.prompts import Blend, from_data
from framepack.planning.video import Endpoint, make_plan
from framepack.schedule.grammar import parse
from tests.growth import growth


def test_lines_are_stretches():
    text = "# first\n0-2.5s: up\n\n2.5 - 4: down: slowly\n4s: left\n"
    expected = [(0, 2.5, "up"), (2.5, 4, "down: slowly"), (4, 5, "left")]
    assert read(text, 5) == tuple(Stretch(start=a, stop=b, prompt=p) for a, b, p in expected)
    assert read("", 5) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("up", ["Line 1", "'up'"]),
        ("0-2s: up\n1-3s: down", ["Line 2", "1 s", "2 s"]),
        ("0-2s: up\n3-5s: down", ["Line 2", "2-3 s"]),
        ("1-2s: up", ["Line 1", "0-1 s"]),
        ("0-0s: up", ["0 s"]),
        ("0-7s: up\n7-9s: down", ["Line 2", "7 s", "5 s"]),
        ("0s:   ", ["Line 1"]),
        ("0:05-0:10: a", ["Line 1", "0-5 s"]),
        ("0" + " " * 100_000 + "x", ["Line 1"]),
        ("[0s: a] " * 501, ["Line 1"]),
        ("\n".join(f"{n / 200}s: a" for n in range(501)), ["Line 501", "500"]),
    ],
)
def test_a_fault_names_its_line_and_time(text: str, words: list[str]):
    with pytest.raises(FramePackError) as caught:
        read(text, 5)
    for word in words:
        assert word in str(caught.value)


TWO = [(0, 2.5, "up"), (2.5, 5, "down")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s-2.5s: up\n2.5s-5s: down", TWO),
        ("0–2.5s: up\n2.5—5s: down", TWO),
        ("0 − 2,5 s: up\n2,5 s: down", TWO),
        ("0:00-0:02.5: up\n0:02,5-0:05: down", TWO),
        ("0 to 2.5 sec: up\n2.5 to 5 seconds: down", TWO),
        ("0-0:02.5: up\n00:00:02.5: down", TWO),
        ("0:00-2.5s: up\n2.5s-0:05: down", TWO),
        ("0-2.5秒：up\n2.5秒：down", TWO),
        ("[0s: up] [2.5s: down]", TWO),
        ("[0s-2.5s: up]\n  [2.5s: down]", TWO),
        ("[0:00] up\n[0:02.5] : down", TWO),
        ("[0s: [red] up][2.5s: down]", [(0, 2.5, "[red] up"), TWO[1]]),
        ("[1s: up] [2.5s: down]", [(0, 1, None), (1, 2.5, "up"), TWO[1]]),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: list):
    assert read(text, 5) == tuple(Stretch(start=a, stop=b, prompt=p) for a, b, p in expected)


@pytest.mark.parametrize(
    "text",
    [
        "0:05 a",
        "2:30 dogs",
        "0-2:30 dogs",
        "0:5: a",
        "0:75: a",
        "0:00:00:12: a",
        "0:00-2: a",
        "1-0:02: a",
        "0-1,500: a",
        "0-2 min: a",
        "0-2sx: a",
        "0-45f: a",
        "0--2s: a",
        "-1s: a",
        "0- : a",
        "0-1.2.3s: a",
        "0,5,1: a",
        "[0s: a",
        "[0s: a] b",
        "[0s]",
        "[]: a",
        "0" * 41 + "s: a",
        "٠s: a",
    ],
)
def test_what_could_mean_two_things_or_nothing_is_refused(text: str):
    with pytest.raises(TimelineError, match="prompt timeline"):
        read(text, 5)


def test_a_stretch_knows_where_its_times_stand():
    text = "# é\n 0–2.5s : up\n[2.5s: down] \n[4s] left"
    assert [text[slice(*stretch.at)] for stretch in read(text, 5)] == ["0–2.5s", "2.5s", "4s"]
    assert [text[slice(*stretch.told)] for stretch in read(text, 5)] == ["up", "down", "left"]


def test_before_the_first_bracket_the_samplers_own_prompt_holds():
    plan = make_plan(parse("td_f16k4f2k2f1k1_g9"), num_lat_frames=37)
    stretches = read("[1.5s: up] [3s: down]", 4.83)
    assert [s.prompt for s in with_prompts(plan, stretches, 30).sections] == [None, "up", "down", "down"]
    blended = with_prompts(plan, stretches, 30, 3.0).sections
    assert [s.prompt for s in blended][:1] == [None]


@pytest.mark.parametrize(
    "text", [17, None, "0s: " + "x" * 200_000, "0s: a\ud800", "0s: " + "x" * 20_001], ids=lambda t: repr(t)[:9]
)
def test_a_timeline_without_bounds_is_rejected(text):
    with pytest.raises(FramePackError):
        read(text, 5)


def test_a_timeline_may_begin_later_than_the_plan():
    plan = make_plan(parse("td_f16k4f2k2f1k1_g9"), num_lat_frames=37)
    stretches = read("0s: one\n1.2s: two\n2.4s: three", 3.6)
    prompts = [section.prompt for section in with_prompts(plan, stretches, 30, begins=1.2).sections]
    assert prompts == ["one", "one", "two", "three"]


def test_a_prompt_may_begin_with_a_number():
    assert read("0-2s:30 dogs\n2: 05 cats", 5)[1].prompt == "05 cats"
    assert read("0-2s:30 dogs\n2: 05 cats", 5)[0].prompt == "30 dogs"


def refused(num_spaces: int) -> None:
    with pytest.raises(TimelineError):
        read("0" + " " * num_spaces + "x", 5)


def read_lines(num: int) -> list[Any]:
    return read("\n".join(f"{i}s: prompt {i}" for i in range(num)), 2 * num)


def prompted(num_lat_frames: int) -> Plan:
    stretches = read("\n".join(f"{i}s: prompt {i}" for i in range(num_lat_frames // 16)), 1000)
    return with_prompts(make_plan(parse("td_f1k1_g1"), num_lat_frames=num_lat_frames), stretches, 30, blend=60.0)


@pytest.mark.timed
@pytest.mark.parametrize(
    ("run", "small", "large"), [(refused, 24_000, 192_000), (read_lines, 60, 480), (prompted, 1000, 8000)]
)
def test_a_long_line_and_a_long_timeline_are_read_in_linear_time(run: Callable[[int], Any], small: int, large: int):
    assert growth(run, small, large) < 24  # linear: 8; quadratic: 64


@given(st.text(max_size=200))
def test_any_text_reads_or_is_refused(text: str):
    try:
        read(text, 5)
    except FramePackError as fault:
        assert "prompt timeline" in str(fault) or isinstance(fault, PlanError)


def test_each_section_takes_the_prompt_of_its_middle_and_endpoints_keep_theirs():
    schedule = parse("f1k1_x_g9_f1k1f2k2f16k4_td")
    stretches = read("0-2.4s: one\n2.4s: two", 4.83)
    plan = with_prompts(make_plan(schedule, num_lat_frames=37), stretches, 30)
    assert [s.makes[0] for s in plan.sections] == [(28, 37), (19, 28), (10, 19), (1, 10)]
    assert [s.prompt for s in plan.sections] == ["two", "two", "one", "one"]
    middle = 4 * (10 + 18) / 2 / 30  # of [10, 19), in seconds
    at = [read(f"0-{border}s: one\n{border}s: two", 4.83) for border in (middle, middle + 0.01)]
    assert [with_prompts(plan, s, 30).sections[2].prompt for s in at] == ["one", "one"]
    bare = make_plan(schedule, num_lat_frames=37)
    assert [with_prompts(bare, s, 30).sections[2].prompt for s in at] == ["two", "one"]
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


def test_a_blend_spans_half_its_seconds_on_each_side_of_a_border():
    stretches = read("0-2s: one\n2-4s: two\n4-4.5s: two\n4.5s: three", 6)
    assert blended_at(stretches, 1.5, 1.0) == "one"
    assert blended_at(stretches, 1.6, 1.0) == Blend(before="one", after="two", weight=0.1)
    assert blended_at(stretches, 2.4, 1.0) == Blend(before="one", after="two", weight=0.9)
    assert blended_at(stretches, 2.5, 1.0) == "two"
    assert blended_at(stretches, 4.25, 1.0) == Blend(before="two", after="three", weight=0.25)
    assert blended_at(stretches, 0.0, 1.0) == "one"
    assert blended_at((), 1.0, 1.0) is None


@pytest.mark.parametrize("weight", [0, 1, -0.5, 1.5, float("nan")])
def test_a_blend_has_a_share_of_both(weight: float):
    with pytest.raises(PlanError):
        Blend(before="one", after="two", weight=weight)


def test_the_longest_blend_is_valid():
    plan = make_plan(parse("td_f1k1_g9"), num_lat_frames=10)
    assert with_prompts(plan, read("0s: a", 1), 30, 60.0).sections[0].prompt == "a"


def test_a_blend_of_a_weight_that_rounds_to_nothing_is_the_one_prompt():
    stretches = read("0-1.2s: a\n1.2s: b", 10)
    assert blended_at(stretches, 0.8 + 1e-5, 0.8) == "a"
    assert blended_at(stretches, 1.6 - 1e-5, 0.8) == "b"
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37)
    assert with_prompts(plan, stretches, 25, 0.8).sections[-1].prompt == "a"
    with_prompts(plan, stretches, 25, 0.8).to_json()


@pytest.mark.parametrize("blend", [-1.0, float("nan"), float("inf"), 61.0])
def test_a_blend_out_of_bounds_is_rejected(blend: float):
    plan = make_plan(parse("td_f1k1_g9"), num_lat_frames=10)
    with pytest.raises(FramePackError):
        with_prompts(plan, read("0s: a", 1), 30, blend)


def test_a_blend_is_shown_with_both_shares():
    assert str(Blend(before="one", after="two", weight=0.25)) == "75% one + 25% two"


def test_a_blend_is_part_of_the_plan_and_reads_back():
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37)
    told = with_prompts(plan, read("0-2.4s: one\n2.4s: two", 4.83), 30, blend=2.0)
    assert any(isinstance(section.prompt, Blend) for section in told.sections)
    assert Plan.from_json(told.to_json()) == told


@pytest.mark.parametrize(
    "prompt",
    [3, ["a"], {"before": "a"}, {"before": "a", "after": 2, "weight": 0.5}, "x" * 20_001, "a\ud800"]
    + [{"before": "a", "after": "b", "weight": weight} for weight in (0, 1, "0.5", True, float("nan"), 10**400)],
    ids=lambda prompt: repr(prompt)[:48],
)
def test_a_prompt_of_another_shape_or_size_is_rejected(prompt):
    with pytest.raises(PlanError):
        from_data(prompt)
