"""Pictures of schedules and plans, and the costs that they state."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from PIL import ImageChops

from framepack.pictures.drawing import GENERATED, IMAGE, WIDTH, blank, colour_of, cut, in_palette, length, one_line
from framepack.pictures.plan_picture import HEADING, ROW, draw_plan
from framepack.pictures.schedule_picture import draw_schedule, summary
from framepack.planning.video import Endpoint, PlanRequest, make_plan, plan_video
from framepack.schedule.grammar import parse
from framepack.schedule.presets import PRESETS
from framepack.units import Kernel
from tests.growth import growth
from tests.names import TABLE_1

INVERTED = "f1k1_x_g9_f1k1f2k2f16k4_td"


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


@pytest.mark.parametrize("name", [*TABLE_1, *(preset.text for preset in PRESETS.values())])
def test_a_schedules_picture_shows_every_kernel_and_what_is_generated(name: str):
    schedule = parse(name)
    colours = {colour for _, colour in draw_schedule(schedule, 60, 104).getcolors(1 << 20)}
    assert {colour_of(group.kernel) for group in schedule.groups} <= colours
    assert rgb(GENERATED) in colours


@pytest.mark.parametrize("name", [INVERTED, "td_f512k16f64k8f8k2f1k1_g9"])
def test_in_its_palette_a_picture_looks_the_same(name: str):
    schedule = parse(name)
    for picture in (draw_schedule(schedule, 60, 104), draw_plan(make_plan(schedule, num_lat_frames=40))):
        few = in_palette(picture)
        assert few.mode == "P"
        extrema = ImageChops.difference(few.convert("RGB"), picture).getextrema()
        assert max(high for _, high in extrema) <= 12
        assert few.convert("RGB").getpixel((0, 0)) == picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_plans_picture_has_a_row_per_section_and_a_line_per_prompt():
    plan = make_plan(parse(INVERTED), num_lat_frames=37)
    told = replace(plan, sections=tuple(replace(s, prompt=f"prompt {i}") for i, s in enumerate(plan.sections)))
    assert draw_plan(told).height == draw_plan(plan).height + 4 * HEADING
    assert draw_plan(replace(plan, sections=plan.sections[:3])).height == draw_plan(plan).height - ROW


def test_a_section_without_a_prompt_among_others_says_so():
    """Else it would seem to be told what stands above it."""
    plan = make_plan(parse(INVERTED), num_lat_frames=37, endpoints=[Endpoint(frame=18, prompt="a blue circle")])
    prompts = [section.prompt for section in plan.sections]
    changes = sum(a != b for a, b in itertools.pairwise([0, *prompts]))
    assert None in prompts
    assert "a blue circle" in prompts
    untold = replace(plan, sections=tuple(replace(section, prompt=None) for section in plan.sections))
    assert draw_plan(plan).height == draw_plan(untold).height + changes * HEADING


@pytest.mark.parametrize(("length", "fps"), [(2, 30), (37, 30), (37, 1), (37, 240), (451, 24), (9001, 30)])
def test_a_plans_picture_can_be_drawn_at_any_rate(length: int, fps: float):
    colours = {
        colour for _, colour in draw_plan(make_plan(parse(INVERTED), num_lat_frames=length), fps).getcolors(1 << 20)
    }
    assert {rgb(GENERATED), rgb(IMAGE)} <= colours


@pytest.mark.parametrize("seconds", [1.0, 5.0, 721.0, 1199.0])
def test_a_plan_exact_to_the_frame_can_be_drawn_at_any_length(seconds: float):
    """In a long one the frames that are cut are narrower than a pixel."""
    plan = plan_video(PlanRequest.lasting(seconds, 30, schedule=parse(INVERTED), exact=True))
    assert len(plan.kept_frames) == 30 * seconds < plan.num_pix_frames
    assert draw_plan(plan).height < 1200


@pytest.mark.parametrize(
    "text",
    ["x" * 1_000_000, "a\nb\r\n\tc", "\ud800 \x00", "外" * 2000, "W" * 2000, "i" * 2000],
    ids=lambda t: repr(t[:4]),
)
def test_a_picture_takes_any_prompt(text: str):
    plan = make_plan(parse(INVERTED), num_lat_frames=217)
    named = replace(plan, sections=tuple(replace(s, prompt=f"{i} {text}") for i, s in enumerate(plan.sections)))
    assert draw_plan(named).height == draw_plan(plan).height + 24 * HEADING


@pytest.mark.timed
@pytest.mark.parametrize("letter", ["x", "外", "W", "i"])
def test_a_longer_prompt_takes_no_longer_to_draw(letter: str):
    plan = make_plan(parse(INVERTED), num_lat_frames=217)

    def drawn(num: int) -> None:
        sections = (replace(s, prompt=f"{i} {letter * num}") for i, s in enumerate(plan.sections))
        draw_plan(replace(plan, sections=tuple(sections)))

    assert growth(drawn, 500, 500_000) < 4  # linear: 1000


@pytest.mark.parametrize("text", ["i" * 5000, "W" * 5000, "two words " * 100])
def test_a_line_is_cut_to_the_most_that_fits(text: str):
    _, draw = blank(10)
    line = one_line(text)
    found = cut(draw, line, WIDTH, 24)
    assert found.endswith("…")
    assert length(draw, found, 24) <= WIDTH < length(draw, line[: len(found) + 1] + "…", 24)
    assert cut(draw, "short", WIDTH, 24) == "short"


def test_drawing_polls_for_an_interrupt():
    class Cancelled(Exception):
        pass

    def poll() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        draw_plan(make_plan(parse(INVERTED), num_lat_frames=37), 30, poll)


def test_a_long_plans_picture_stays_small():
    assert draw_plan(make_plan(parse(INVERTED), num_lat_frames=9001)).height < 1200


def test_a_paler_colour_is_a_larger_kernel():
    shades = [sum(colour_of(Kernel.short(k))) for k in (1, 2, 4, 8)]
    assert shades == sorted(shades)


def test_large_ratios_are_written_out():
    lines = summary(parse("td_f512k8f64k4f8k2f1k1_g9"), 60, 104)
    assert lines[2].startswith("a step costs 1,088 times less")
