"""The simulated farm obeys the bounds that every farm has, and a real one's run agrees with it (benchmarks/farm.py)."""

from __future__ import annotations

import pytest

from framepack.farm.graph import Graph
from framepack.farm.simulation import Costs, simulate
from framepack.planning.request import Endpoint
from framepack.planning.video import make_plan
from framepack.schedule.presets import resolve

pytest.importorskip("simpy")


def gaps(num: int) -> Graph:
    points = tuple(Endpoint(frame=18 * i, slot=f"image {i}") for i in range(1, num))
    plan = make_plan(resolve("inverted"), num_lat_frames=18 * num + 1, height=64, width=64, endpoints=points)
    return Graph.of(plan, [2.0] * len(plan.sections))


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
def test_no_number_of_workers_beats_the_critical_path_or_the_work(workers: int):
    held = gaps(4)
    outcome = simulate([held], workers)
    assert outcome.seconds >= max(held.critical, held.total / workers) - 1e-9
    assert outcome.busy == pytest.approx(held.total)
    assert 0 < outcome.share <= 1
    if workers in (1, 64):
        assert outcome.seconds == pytest.approx(held.total if workers == 1 else held.critical)


def test_plans_that_do_not_depend_on_one_another_run_side_by_side():
    held = gaps(2)
    assert simulate([held] * 3, 64).seconds == pytest.approx(held.critical)
    assert simulate([held] * 3, 1).seconds == pytest.approx(3 * held.total)


def test_start_up_and_overhead_are_added_once_for_each_worker_and_section():
    chain = Graph(needs=((), (0,), (1,)), costs=(1.0, 1.0, 1.0))
    assert simulate([chain], 4, Costs(overhead=0.5, startup=10.0)).seconds == pytest.approx(14.5)


def test_a_driver_hands_out_one_section_at_a_time():
    wide = Graph(needs=((),) * 100, costs=(1.0,) * 100)
    outcome = simulate([wide], 100, Costs(overhead=0.5, driver=0.5))
    assert outcome.driver == pytest.approx(50)
    assert outcome.seconds == pytest.approx(51)
