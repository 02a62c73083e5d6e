"""A slice of a plan: what one node, or one machine, needs of it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from framepack.errors import FramePackError, PlanError
from framepack.planning.plan import Plan
from framepack.planning.plan_slice import PlanSlice
from framepack.planning.request import Endpoint, Extension, PlanRequest
from framepack.planning.takes import Take
from framepack.planning.video import plan_video
from framepack.schedule.grammar import parse
from framepack.units import RELEASED

INVERTED, FORWARD = "f1k1_x_g9_f1k1f2k2f16k4_td", "f1k1_x_f16k4f2k2f1k1_g9"
CLIPS = replace(RELEASED, sections_are_clips=True)
TWO = Extension(num_lat_frames=18, direction="forwards")
KEY = (Endpoint(frame=20, slot="key", prompt="a"),)


def planned(schedule: str = INVERTED, num: int = 46, **options: Any) -> Plan:
    size = {"height": 64, "width": 96}
    return plan_video(PlanRequest(schedule=parse(schedule), num_lat_frames=num, **(size | options)))


PLANS = {
    "inverted": planned(),
    "forward": planned(FORWARD),
    "an end image": planned(end=True),
    "a key frame": planned(FORWARD, num=47, endpoints=KEY),
    "extended": planned(FORWARD, extend=replace(TWO, num_lat_frames=10)),
    "from text": planned(FORWARD, start=False),
    "exact": planned(kept=(3, 140)),
    "clips": planned(FORWARD, num=45, geometry=CLIPS),
    "clips, extended": planned(FORWARD, num=45, geometry=CLIPS, extend=TWO),
    "chosen": planned(FORWARD, importance="hybrid"),
    "discrete": planned("td_f16k4f2k2f1k1_g9+d"),
}


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("in_turn", [False, True])
def test_a_slice_is_read_from_its_json_as_it_was(kind: str, in_turn: bool):
    plan = PLANS[kind]
    takes = {0: Take(seed=3), 1: Take(lock="0123456789abcdef")}
    for part in (
        *(PlanSlice.of(plan, i, i + 2, in_turn, takes=takes) for i in range(len(plan.sections))),
        PlanSlice.of(plan, in_turn=in_turn, takes=takes),
        PlanSlice.within(plan, range(20)),
        PlanSlice.within(plan, range(plan.num_lat_frames)),
        PlanSlice.placed(plan, ()),
    ):
        text = part.to_json()
        assert PlanSlice.from_json(text) == part
        assert ": " not in text, "it is compact"
        assert None not in json.loads(text).values(), "it leaves out what it does not have"


@pytest.mark.parametrize("kind", PLANS)
def test_slices_share_out_the_sections_and_each_has_the_anchors_that_it_sees(kind: str):
    plan = PLANS[kind]
    parts = [PlanSlice.of(plan, i, i + 2) for i in range(0, len(plan.sections), 2)]
    assert tuple(chain.from_iterable(part.sections for part in parts)) == plan.sections
    assert PlanSlice.of(plan).sections == plan.sections
    for i, part in enumerate(parts):
        assert part.first == 2 * i
        assert (part.height, part.width, part.geometry) == (64, 96, plan.geometry)
        assert part.grid == (8, 12)
        seen = set().union(*(section.known for section in part.sections))
        assert set(part.anchors) == {anchor for anchor in plan.anchors if seen & set(anchor.frames)}
        assert part.slots == {a.slot for a in part.anchors}.union(*(section.slots for section in part.sections))
        assert part.drawn is part.clips is part.kept is None


def test_the_start_frame_is_placed_where_it_is_asked_for():
    plan = planned("td_f16k4f2k2f1k1_g9", num=100)
    last = len(plan.sections) - 1
    assert PlanSlice.of(plan, last).anchors == ()
    assert [anchor.slot for anchor in PlanSlice.of(plan, last, start=True).anchors] == ["start"]


def test_a_slice_whose_noise_is_drawn_in_turn_states_what_was_drawn_before_and_all_from_outside():
    plan = PLANS["clips"]
    parts = [PlanSlice.of(plan, i, i + 1, in_turn=True) for i in range(len(plan.sections))]
    assert [part.drawn for part in parts] == [(9,) * i for i in range(len(plan.sections))]
    assert all(part.outside == parts[0].outside for part in parts)
    assert [each.slot for each in parts[0].outside] == ["start", "still"], "in the order of the release"
    assert PlanSlice.of(PLANS["forward"], in_turn=True).outside == (), "a video that is one clip gets no noise"


def test_another_has_what_it_sees_from_outside():
    plan = planned("td_f16k4f2k2f1k1_g9", num=90, geometry=CLIPS, extend=TWO)
    slots = [{each.slot for each in PlanSlice.of(plan, i, i + 1).outside} for i in range(len(plan.sections))]
    assert "video" in slots[0]
    assert slots[-1] == set()


def test_a_slice_has_the_takes_of_its_own_sections():
    takes = {i: Take(seed=i) for i in range(5)}
    assert PlanSlice.of(PLANS["inverted"], 1, 3, takes=takes).takes == {1: Take(seed=1), 2: Take(seed=2)}
    assert PlanSlice.of(PLANS["inverted"], 1, 3).takes == {}


def test_it_says_whether_its_history_is_discrete():
    assert PlanSlice.of(planned("td_f16k4f2k2f1k1_g9+d")).discrete
    assert not PlanSlice.of(PLANS["inverted"]).discrete


def test_frames_have_the_anchors_and_clips_within_them():
    plan = PLANS["clips, extended"]
    assert PlanSlice.within(plan, range(18)).clips == (9, 9)
    assert PlanSlice.within(plan, range(9, 27)).clips == (9, 9)
    assert [anchor.slot for anchor in PlanSlice.within(plan, range(17, 27)).anchors] == ["video"]
    assert PlanSlice.within(plan, range(18, 27)).anchors == ()
    assert PlanSlice.within(PLANS["a key frame"], range(18)).clips is None
    assert PlanSlice.within(PLANS["inverted"], range(18)).sections == ()


@pytest.mark.parametrize("size", [{"height": None}, {"width": None}, {"height": None, "width": None}], ids=str)
def test_a_plan_without_a_size_has_no_slices(size: dict[str, Any]):
    plan = replace(PLANS["inverted"], **size)
    for cut in (PlanSlice.of, lambda p: PlanSlice.within(p, range(9)), lambda p: PlanSlice.placed(p, ())):
        with pytest.raises(PlanError, match="height and width"):
            cut(plan)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"height": 0}, "0"),
        ({"width": "64"}, "64"),
        ({"sections": 7}, "7"),
        ({"first": -1}, "-1"),
        ({"anchors": {}}, "{}"),
        ({"drawn": [0]}, "0"),
        ({"clips": [1.5]}, "1.5"),
        ({"geometry": {"spatial": 0}}, "0"),
        ({"kept": [1]}, "1"),
        ({"outside": [["start", None]]}, "start"),
        ({"outside": [["start", -1, [1]]]}, "-1"),
        ({"outside": [["start", None, [0]]]}, "0"),
        ({"discrete": "yes"}, "yes"),
        ({"takes": [[0, -1, None]]}, "-1"),
        ({"more": 1}, "more"),
    ],
    ids=str,
)
def test_what_is_no_slice_is_rejected(change: dict[str, Any], value: str):
    data = json.loads(PlanSlice.of(PLANS["inverted"]).to_json())
    with pytest.raises(FramePackError, match=value.replace("{", r"\{")):
        PlanSlice.from_json(json.dumps(data | change))
    for side in ("height", "width"):
        with pytest.raises(PlanError, match=side):
            PlanSlice.from_json(json.dumps({name: held for name, held in data.items() if name != side}))
