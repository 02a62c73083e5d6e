"""A farm by discrete events (simpy): how long plans take on so many workers, given what a section takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import MissingPackageError
from .graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds: `overhead` for handing a section out and taking it back, `startup` until a worker has its model.

    `driver` is the part of the overhead for which the driver alone is busy, one section at a time.
    """

    overhead: float = 0.0
    startup: float = 0.0
    driver: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Seconds to the end, those that workers sampled in, and those that the driver was busy."""

    seconds: float
    busy: float
    driver: float
    workers: int

    @property
    def share(self) -> float:
        """How much of the workers' time was spent on sampling."""
        return self.busy / (self.seconds * self.workers)


def simulate(plans: Sequence[Graph], workers: int, costs: Costs | None = None) -> Outcome:
    """Several plans, which do not depend on one another, on so many workers; costs of graphs are seconds."""
    simpy, how = _package(), costs or Costs()
    world = simpy.Environment()
    # Workers begin with the sections that have the longest way to the end, as the driver does.
    pool = simpy.PriorityResource(world, capacity=workers)
    driver = simpy.Resource(world, capacity=1)
    busy = [0.0, 0.0]

    def section(graph: Graph, index: int, done: list[Any]) -> Any:
        yield world.all_of([done[need] for need in graph.needs[index]])
        with pool.request(priority=-graph.remaining[index]) as worker:
            yield worker
            with driver.request() as turn:
                yield turn
                yield world.timeout(how.driver)
                busy[1] += how.driver
            yield world.timeout(how.overhead - how.driver + graph.costs[index])
            busy[0] += graph.costs[index]
        done[index].succeed()

    def whole(graph: Graph) -> Any:
        yield world.timeout(how.startup)
        done = [world.event() for _ in graph.needs]
        for index in range(len(graph.needs)):
            world.process(section(graph, index, done))
        yield world.all_of(done)

    world.run(world.all_of([world.process(whole(graph)) for graph in plans]))
    return Outcome(seconds=world.now, busy=busy[0], driver=busy[1], workers=workers)


def _package() -> Any:
    try:
        return import_module("simpy")
    except ImportError as fault:
        raise MissingPackageError(
            "The simulation needs the package simpy, which is not installed. Install it with: pip install '.[farm]'"
        ) from fault
