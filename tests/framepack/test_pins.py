"""Pinned references: their lines, and which sections see them."""

from __future__ import annotations

import pytest

from framepack.errors import FramePackError, PlanError
from framepack.planning.pins import MAX_LINES, MAX_TEXT, Pin, read_pins
from framepack.planning.request import PlanRequest
from framepack.planning.video import make_plan, plan_video
from framepack.schedule.grammar import parse
from framepack.units import RELEASED, Kernel

FORWARD, INVERTED = "td_f16k4f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2f16k4_td"


def pins(text: str) -> tuple[Pin, ...]:
    return read_pins(text, 30, RELEASED)


@pytest.mark.parametrize(
    ("line", "pin"),
    [
        ("0s", Pin(what=range(0, 1))),
        ("0-1.2s", Pin(what=range(0, 9))),
        (" 0 - 1.2 s ", Pin(what=range(0, 9))),
        ("8-10s: 0-1.2s", Pin(what=range(0, 9), during=range(60, 75))),
        ("8s: 1.2s", Pin(what=range(9, 10), during=range(60, 61))),
        ("image hero", Pin(what="hero")),
        ("image hero as k1", Pin(what="hero", kernel=Kernel.short(1))),
        ("8-10s: image hero as k4", Pin(what="hero", kernel=Kernel.short(4), during=range(60, 75))),
    ],
)
def test_a_line_pins_a_time_or_an_image(line: str, pin: Pin):
    assert pins(line) == (pin,)


def test_each_line_is_a_pin_but_empty_ones_and_comments():
    assert pins("# mine\n\n0s\n   \nimage hero\n#image other\n") == (Pin(what=range(0, 1)), Pin(what="hero"))
    assert pins("") == ()


@pytest.mark.parametrize(
    "line",
    ["0", "1.2-1s", "1-1s", "2-1s: 0s", "image", "image a b", "0s as k1k2", "0s as k123", "-1s", "0s, 1s", "x: 0s"]
    + ["image " + "x" * 65],
)
def test_another_line_is_refused_with_itself(line: str):
    with pytest.raises(FramePackError):
        pins(line)


def test_there_are_at_most_so_many_lines_and_characters():
    assert len(pins("\n".join(["0s"] * MAX_LINES))) == MAX_LINES
    assert pins("#" * MAX_TEXT) == ()
    for text in ("\n" * MAX_LINES, "#" * (MAX_TEXT + 1), 7, None, ["0s"]):
        with pytest.raises(FramePackError, match=str(MAX_LINES)):
            read_pins(text, 30, RELEASED)  # type: ignore[arg-type]


def test_a_pin_moves_with_the_video():
    assert Pin(what=range(2, 5), during=range(60, 75)).moved(7) == Pin(what=range(9, 12), during=range(67, 82))
    assert Pin(what="hero", kernel=Kernel.short(1)).moved(7) == Pin(what="hero", kernel=Kernel.short(1))


def test_a_pin_keeps_its_time_where_the_start_is_cut():
    options = {"schedule": parse(INVERTED), "exact": True, "start": False, "end": True, "importance": "hybrid"}
    plan = plan_video(PlanRequest.lasting(5, 30, pins=pins("4-5s"), **options))
    cut = plan.kept_frames.start
    pinned = {pin.frame for s in plan.sections if s.choice for pin in s.choice.pinned}
    moved = -(-cut // 4)
    assert cut == 31
    assert pinned == set(range(RELEASED.latent_frame(4, 30) + moved, RELEASED.latent_frame(5, 30) + moved))


@pytest.mark.parametrize("importance", ["by_time", "hybrid"])
def test_later_sections_see_it_and_earlier_ones_do_not(importance: str):
    plan = make_plan(parse(FORWARD), num_lat_frames=55, importance=importance, pins=pins("1.2s"))
    seen = [9 in section.known for section in plan.sections]
    assert seen == [section.makes[0][0] > 9 for section in plan.sections]
    last = plan.sections[-1]
    assert (last.choice is None) == (importance == "by_time")
    held = [f for c in last.context for f in c.frames] if last.choice is None else [p.frame for p in last.choice.pinned]
    assert 9 in held


def test_it_acts_during_its_time():
    plan = make_plan(parse(FORWARD), num_lat_frames=91, importance="hybrid", pins=pins("8-10s: 0s"))
    acting = [any(pin.frame == 0 for pin in s.choice.pinned) for s in plan.sections if s.choice]
    during = [any(60 <= frame < 75 for frame in s.made) for s in plan.sections if s.choice]
    assert acting == during


@pytest.mark.parametrize("line", ["9-10s: 9.5-10.5s", "20s"])
def test_one_that_no_section_can_see_is_refused(line: str):
    with pytest.raises(PlanError, match="No section can see"):
        make_plan(parse(FORWARD), num_lat_frames=91, pins=pins(line))
