"""Lengths in seconds: whole sections, or exact to the frame."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.errors import PlanError
from framepack.planning.length import Ends, exact_length
from framepack.planning.plan import Plan
from framepack.planning.plan_slice import PlanSlice
from framepack.planning.request import Endpoint, Extension, PlanRequest
from framepack.planning.video import plan_video
from framepack.schedule.grammar import parse

INVERTED, FORWARD = "f1k1_x_g9_f1k1f2k2f16k4_td", "td_f16k4f2k2f1k1_g9"
AFTER, BEFORE = (Extension(num_lat_frames=10, direction=d) for d in ("forwards", "backwards"))
CASES: list[tuple[str, dict[str, Any]]] = [
    (INVERTED, {}),
    (FORWARD, {}),
    (FORWARD, {"start": False}),
    (FORWARD, {"start": False, "no_start": "zero"}),
    (INVERTED, {"end": True}),
    (INVERTED, {"end": True, "start": False}),
    (INVERTED, {"end": True, "start": False, "no_start": "zero"}),
    (FORWARD, {"extend": AFTER}),
    (INVERTED, {"extend": BEFORE, "start": False}),
    (INVERTED, {"extend": BEFORE}),
]


def planned(schedule: str, seconds: float, *, exact: bool = True, fps: float = 30.0, **options: Any) -> Plan:
    request = PlanRequest.lasting(seconds, fps, schedule=parse(schedule), exact=exact, **options)
    return plan_video(request)


@given(st.sampled_from(CASES), st.floats(0.1, 20), st.sampled_from([1.0, 16.0, 23.976, 30.0]))
@settings(max_examples=60, deadline=None)
def test_an_exact_video_has_the_frames_that_were_asked_for(
    case: tuple[str, dict[str, Any]], seconds: float, fps: float
):
    schedule, options = case
    plan = planned(schedule, seconds, fps=fps, **options)
    extended = {AFTER: 37, BEFORE: 40}.get(options.get("extend"), 0)  # its first latent is one frame, or four
    assert len(plan.kept_frames) == max(round(seconds * fps), 1) + extended
    assert plan.num_pix_frames - len(plan.kept_frames) < 36 + 3
    assert Plan.from_json(plan.to_json()) == plan


def test_whole_sections_are_the_default():
    assert planned(INVERTED, 5, exact=False).kept is None
    assert len(planned(INVERTED, 5, exact=False).kept_frames) == 145
    assert len(planned(INVERTED, 5).kept_frames) == 150


@pytest.mark.parametrize(
    ("case", "kept"),
    list(zip(CASES, [(0, 150)] * 5 + [(31, 181), (27, 177), (0, 187), (31, 221), (3, 193)], strict=True)),
    ids=lambda case: str(case[1]),
)
def test_frames_are_cut_at_the_end_where_nothing_stands(case: tuple[str, dict[str, Any]], kept: tuple[int, int]):
    assert planned(case[0], 5, **case[1]).kept == kept


def test_an_end_image_stands_behind_the_last_frame_that_is_kept():
    plan = planned(INVERTED, 5, end=True)
    assert plan.num_pix_frames - len(plan.kept_frames) < 4
    assert plan.sections[0].makes[0][1] == plan.num_lat_frames
    assert [stop - start for section in plan.sections for start, stop in section.makes] == [9, 9, 9, 9, 2]


@given(st.integers(1, 600), st.sampled_from([1, 4, 9]), st.booleans())
def test_less_than_a_section_is_cut_and_between_images_less_than_a_latent_frame(num: int, generate: int, end: bool):
    found = exact_length(num / 30, 30, generate, Ends(end_image=end))
    assert found.num_kept == num
    assert 0 <= found.cut < (4 if end else 4 * generate) + (num == 1)  # a start image alone is no video
    assert found.cut_at == "end"
    assert found.num_sections == -(-(found.num_lat_frames - 1) // generate)
    assert found.num_pix_frames == 4 * found.num_lat_frames - 3


@pytest.mark.parametrize(
    ("ends", "at"),
    [
        (Ends(), "end"),
        (Ends(begins="zero"), "end"),
        (Ends(begins="video"), "end"),
        (Ends(end_image=True, begins="section"), "start"),
        (Ends(backwards=True, begins="zero"), "start"),
        (Ends(backwards=True), "start"),
    ],
    ids=str,
)
def test_frames_are_cut_at_the_end_that_is_free(ends: Ends, at: str):
    assert exact_length(5, 30, 9, ends).cut_at == at


def test_endpoints_lie_among_the_frames_that_are_kept():
    assert planned(INVERTED, 5, endpoints=(Endpoint(frame=38, seconds=5.0),))
    with pytest.raises(PlanError, match="150 frames that are kept; got one at 5.2 s"):
        planned(INVERTED, 5, endpoints=(Endpoint(frame=39, seconds=5.2),))


def test_where_the_start_is_cut_endpoints_keep_their_time():
    plan = planned(INVERTED, 5, end=True, start=False, endpoints=(Endpoint(frame=19, seconds=2.5, prompt="mine"),))
    made = next(section.makes[0] for section in plan.sections if section.prompt == "mine")
    assert made == (27, 28)  # of latent frame 27 the frame 75 after the 31 that are cut
    assert 4 * 27 - 3 <= 31 + 75 <= 4 * 27


def test_only_the_slice_that_reaches_the_end_states_what_is_kept():
    plan = planned(INVERTED, 1.0, height=64, width=64)
    assert PlanSlice.within(plan, range(5)).kept is None
    part = PlanSlice.within(plan, range(plan.num_lat_frames))
    assert part.kept == (0, 30)
    assert PlanSlice.from_json(part.to_json()) == part


@pytest.mark.parametrize("kept", [[5, 5], [0, 146], [0], [-1, 3], "all", [0, 1.5]])
def test_frames_that_a_plan_cannot_keep_are_rejected(kept: Any):
    text = planned(INVERTED, 5, exact=False).to_json().replace('"height"', f'"kept":{str(kept)!s},"height"', 1)
    with pytest.raises(PlanError):
        Plan.from_json(text.replace("'", '"').replace('"kept":all', '"kept":"all"'))


def test_the_longest_video_is_exact_or_refused():
    assert len(planned(FORWARD, 1200).kept_frames) == 36_000
    with pytest.raises(PlanError):
        planned(FORWARD, 1200.1)
