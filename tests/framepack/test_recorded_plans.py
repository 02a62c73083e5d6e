"""Plans of every kind are the recorded ones, position by position."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framepack.planning.plan import Plan
from framepack.planning.prompt_timeline import read, with_prompts
from framepack.planning.request import Endpoint, Extension
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse

HERE = Path(__file__).parent / "plans"
INVERTED, F1 = "f1k1_x_g9_f1k1f2k2f16k4_td", "f1k1_x_f16k4f2k2f1k1_g9"
VANILLA, ENDPOINT = "td_f16k4f2k2f1k1_g9", "td_f16k4f2k2f1k1_g9_x_f1k1"
POINTS = (Endpoint(frame=20, slot="key", prompt="a blue circle"), Endpoint(frame=45, prompt="a red star"))

REQUESTS = {
    "inverted": (INVERTED, {"num_lat_frames": 37, "height": 480, "width": 832}),
    "inverted-from-text": (INVERTED, {"num_lat_frames": 28, "start": False}),
    "inverted-zero-latent": (INVERTED, {"num_lat_frames": 27, "start": False, "no_start": "zero"}),
    "inverted-true": (INVERTED, {"num_lat_frames": 64, "gap": "true"}),
    "inverted-capped": (INVERTED, {"num_lat_frames": 64, "gap": "capped:1"}),
    "inverted-pinned": (INVERTED, {"num_lat_frames": 30, "gap": "pinned"}),
    "inverted-long-sections": ("f1k1_x_g16_f1k1f2k2f16k4_td", {"num_lat_frames": 81}),
    "inverted-halved": (INVERTED, {"num_lat_frames": 64, "order": "halved"}),
    "inverted-endpoints": (INVERTED, {"num_lat_frames": 70, "endpoints": POINTS}),
    "inverted-compress": ("f1k1_x_g9_f1k1f2k2f16k4_tc", {"num_lat_frames": 64}),
    "end-image": (INVERTED, {"num_lat_frames": 28, "end": True}),
    "f1": (F1, {"num_lat_frames": 37}),
    "f1-true": (F1, {"num_lat_frames": 64, "gap": "true"}),
    "f1-append": ("ta_f1k1_x_f16k4f2k2f1k1_g9", {"num_lat_frames": 64}),
    "f1-endpoints": (F1, {"num_lat_frames": 70, "endpoints": POINTS, "start": False}),
    "vanilla": (VANILLA, {"num_lat_frames": 40, "start": False}),
    "vanilla-append": ("ta_f16k4f2k2f1k1_g9", {"num_lat_frames": 64}),
    "vanilla-compress-zero": ("tc_f2k2f1k1_g4", {"num_lat_frames": 20, "start": False, "no_start": "zero"}),
    "endpoint": (ENDPOINT, {"num_lat_frames": 64}),
    "endpoint-short": (ENDPOINT, {"num_lat_frames": 12}),
    "endpoint-capped": (ENDPOINT, {"num_lat_frames": 64, "gap": "capped:2"}),
    "endpoint-future-tail": ("f2k2f1k1_g4_x_f1k1_ta", {"num_lat_frames": 30}),
    "endpoint-endpoints": (ENDPOINT, {"num_lat_frames": 70, "endpoints": POINTS, "order": "halved"}),
    "extended-forwards": (F1, {"num_lat_frames": 28, "extend": Extension(num_lat_frames=10, direction="forwards")}),
    "extended-backwards": (
        INVERTED,
        {"num_lat_frames": 30, "extend": Extension(num_lat_frames=5, direction="backwards")},
    ),
    "extended-to-an-end": (
        INVERTED,
        {"num_lat_frames": 30, "end": True, "extend": Extension(num_lat_frames=5, direction="forwards")},
    ),
}
FIRST = {"endpoint", "endpoints-halved", "blended"}  # recorded first with other positions, or by another request


def plan_of(name: str) -> Plan:
    schedule, options = REQUESTS[name]
    return make_plan(parse(schedule), **options)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_plan_is_the_recorded_one(name: str):
    recorded = json.loads((HERE / "recorded" / f"{name}.json").read_text())
    assert plan_of(name).to_dict() == recorded


@pytest.mark.parametrize("path", sorted((HERE / "first").glob("*.json")), ids=lambda path: path.stem)
def test_a_plan_of_the_first_version_is_still_planned_alike(path: Path):
    if path.stem not in FIRST:
        assert plan_of(path.stem) == Plan.from_json(path.read_text())


def test_a_blended_plan_of_the_first_version_is_still_planned_alike():
    plan = with_prompts(plan_of("inverted"), read("0-2.4s: one\n2.4s: two", 4.83), 30, blend=2.0)
    first = Plan.from_json((HERE / "first" / "blended.json").read_text())
    assert plan.sections == first.sections
