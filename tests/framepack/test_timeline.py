"""The prompt timeline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import FramePackError
from framepack.schedule import parse
from framepack.sections import Endpoint, make_plan
from framepack.timeline import Stretch, prompt_at, read, with_prompts


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
