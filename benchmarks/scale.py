"""How long videos take on many GPUs, by simulation: python -m benchmarks.scale [--section SECONDS].

Prints docs/scale.md's tables. A section is one of 9 latent frames, 36 frames at 30 a second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache

from framepack.farm.graph import Graph
from framepack.farm.simulation import Costs, simulate
from framepack.planning.plan import Plan
from framepack.planning.request import Endpoint
from framepack.planning.video import make_plan
from framepack.schedule.presets import resolve

SECTION = 30.5  # seconds on an H200: 25 steps of 1.22 s (results/gpu.md), decoded beside; 90 on an RTX 4090, published
COSTS = Costs(overhead=0.06, driver=0.05, startup=60.0)  # benchmarks.handing; loading the model is an estimate
LENGTHS = {"1 min": (450, 1), "10 min": (4500, 1), "1 h": (9000, 3), "2 h": (9000, 6)}  # latent frames, plans
GPUS = (1, 8, 64, 512)
APART = 72  # latent frames between key frames: 9.6 s


def key_frames(schedule: str, num: int, order: str | None = None) -> Plan:
    """A plan with a key frame every 72 latent frames."""
    points = tuple(Endpoint(frame=frame, slot=f"image {frame}") for frame in range(APART, num, APART))
    return make_plan(resolve(schedule), num_lat_frames=num + 1, height=480, width=832, endpoints=points, order=order)


def plain(schedule: str, num: int) -> Plan:
    """A plan from a start image alone."""
    return make_plan(resolve(schedule), num_lat_frames=num + 1, height=480, width=832)


PLANNERS: dict[str, Callable[[int], Plan]] = {
    "forward (F1)": lambda num: plain("forward", num),
    "inverted": lambda num: plain("inverted", num),
    "endpoint": lambda num: plain("endpoint", num),
    "key frames, inverted": lambda num: key_frames("inverted", num),
    "key frames, halved": lambda num: key_frames("inverted", num, "halved"),
}


@cache
def graph_of(planner: str, num: int, section: float) -> Graph:
    """A planner's graph, each section so many seconds."""
    plan = PLANNERS[planner](num)
    return Graph.of(plan, [section] * len(plan.sections))


def told(seconds: float) -> str:
    """Hours, or minutes below two of them."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--section", type=float, default=SECTION)
    args = parser.parse_args()
    rows = ["| planner | video | sections | critical path | at once | 1 | 8 | 64 | 512 | GPU hours, paid at 64 |"]
    rows += ["|---|---|---|---|---|---|---|---|---|---|"]
    for planner in PLANNERS:
        for length, (num, plans) in LENGTHS.items():
            graph = graph_of(planner, num - num % 9, args.section)
            runs = {gpus: simulate([graph] * plans, gpus, COSTS) for gpus in GPUS}
            times = " | ".join(told(run.seconds) for run in runs.values())
            hours = f"{graph.total * plans / 3600:.1f}, {runs[64].seconds * 64 / 3600:.0f}"
            size = f"{len(graph.needs) * plans} | {told(graph.critical)} | {graph.widest() * plans}"
            rows.append(f"| {planner} | {length} | {size} | {times} | {hours} |")
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
