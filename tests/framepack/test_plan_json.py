"""Plans as JSON."""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from framepack.errors import FramePackError, PlanError
from framepack.planning.plan import Plan
from framepack.planning.prompts import to_data
from framepack.planning.request import PlanRequest
from framepack.planning.video import make_plan, plan_video
from framepack.schedule.grammar import parse
from framepack.units import RELEASED, Geometry
from tests.growth import growth

I2V = "f1k1_x_g9_f1k1f2k2f16k4_td"
F1 = "f1k1_x_f16k4f2k2f1k1_g9"
HALF = Geometry(spatial=16, temporal=8, patch=1, channels=32)


def test_the_json_of_a_thousand_sections_with_a_tail_stays_linear():
    text = make_plan(parse("ta_f16k4f2k2f1k1_g9"), num_lat_frames=9001).to_json()
    assert len(text) < 600_000
    assert Plan.from_json(text).sections[-1].context[0].frames == range(9001 - 9 - 19)


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
    def refused(num: int) -> None:
        wide = {"kernel": [1, 2, 2], "frames": {"start": 0, "stop": num}, "positions": {"start": 0, "stop": num}}
        with pytest.raises(PlanError, match="6000000"):
            Plan.from_json(slice_of(context=[wide] * (7_000_000 // num)))

    assert growth(refused, 1000, 10**6) < 1  # fewer contexts, but as many frames


def test_a_plan_of_a_million_sections_is_refused_before_it_takes_memory():
    section = '{"makes":[[0,1]],"positions":[0],"context":[]}'
    text = f'{{"schedule":"td_f1k1_g1","num_lat_frames":9,"sections":[{",".join([section] * 1_000_000)}]}}'
    tracemalloc.start()
    with pytest.raises(PlanError, match="at most 9001 sections; got 1000000"):
        Plan.from_json(text)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
