"""Which sections may be sampled at the same time, and how long the critical path is."""

from __future__ import annotations

from framepack.farm.graph import Graph
from framepack.planning.request import Endpoint
from framepack.planning.video import make_plan
from framepack.schedule.presets import resolve

GAPS = tuple(Endpoint(frame=frame, slot=f"image {frame}") for frame in (18, 36, 54))


def graph(*needs: tuple[int, ...], costs: tuple[float, ...] = ()) -> Graph:
    return Graph(needs=needs, costs=costs or (1.0,) * len(needs))


def test_a_section_is_ready_when_all_that_it_needs_is_done():
    held = graph((), (), (0, 1), (2,))
    assert held.ready([]) == [0, 1]
    assert held.ready([0], [1]) == []
    assert held.ready([0, 1]) == [2]
    assert held.ready(range(4)) == []


def test_the_longest_way_to_the_end_is_begun_first():
    held = graph((), (), (1,), (2,), costs=(1, 1, 1, 5))
    assert held.ready([]) == [1, 0]
    assert held.critical == 7
    assert held.total == 8


def test_gaps_between_key_frames_are_filled_at_the_same_time():
    held = Graph.of(make_plan(resolve("inverted"), num_lat_frames=73, height=64, width=64, endpoints=GAPS))
    assert held.widest() == 4
    assert held.critical < held.total


def test_a_plan_in_which_each_section_sees_the_one_before_is_a_chain():
    held = Graph.of(make_plan(resolve("inverted"), num_lat_frames=73, height=64, width=64))
    assert held.widest() == 1
    assert held.critical == held.total == 8
