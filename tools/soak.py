"""Queue many runs of different workflows on one host, cancel some of them, and look at what is left.

python -m tools.soak [--runs N] [--cancels N] [--seed S]

Prints the host's memory after the tenth and the last run, processes and unfinished files that are left, and errors.
Fails where memory has grown by more than a twentieth, or anything is left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .follow import Run
from .host import REPO, Host, running
from .job import QueueError, Workflow, edited

SHIPPED = REPO / "workflows" / "api" / "image_to_video_small.json"
GROWTH = 0.05
LINES = "0-1.2s: a red star moves up\n1.2s: a red star moves {}"


@dataclass(slots=True)
class Found:
    """What a soak found: the host's resident bytes after each run, runs that ended each way, and what is left."""

    memory: list[int] = field(default_factory=list)
    done: int = 0
    cancelled: int = 0
    faults: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Memory after the last run over that after the tenth, minus 1."""
        return self.memory[-1] / self.memory[min(9, len(self.memory) - 1)] - 1

    def __str__(self) -> str:
        tenth, last = (self.memory[i] / 1e6 for i in (min(9, len(self.memory) - 1), -1))
        lines = [
            f"{self.done} runs ended, {self.cancelled} were cancelled, {len(self.faults)} failed",
            f"memory after the tenth run {tenth:.0f} MB, after the last {last:.0f} MB ({self.growth:+.1%})",
            f"left behind: {', '.join(self.left) or 'nothing'}",
        ]
        return "\n".join([*lines, *self.faults[:5]])


def mixed(rng: random.Random) -> Workflow:
    """The shipped workflow with another schedule, length, prompts, takes, or decoder."""
    workflow: Workflow = json.loads(SHIPPED.read_text("utf-8"))
    numbers = {node["class_type"]: number for number, node in workflow.items()}
    sampler = workflow[numbers["SectionSampler"]]["inputs"]
    sampler["clip"] = [numbers["LoadFramePackTextEncoder"], 0]
    if rng.random() < 0.3:
        sampler["vae"] = [numbers["VAELoader"], 0]
    values: dict[tuple[str, str], Any] = {
        ("PackHistory", "schedule"): rng.choice(("inverted", "forward", "endpoint", "td_f16k4f2k2f1k1_g9")),
        ("EndpointPlanner", "seconds"): rng.choice((1.2, 2.4, 3.6)),
        ("EndpointPlanner", "exact_length"): rng.random() < 0.3,
        ("EndpointPlanner", "prompts"): rng.choice(("", LINES.format(rng.choice(("left", "right"))))),
        ("SectionSampler", "steps"): rng.choice((1, 2)),
        ("SectionSampler", "seed"): rng.randrange(8),
        ("SectionSampler", "takes"): rng.choice(("", "", f"1: {rng.randrange(4)}")),
    }
    if values["EndpointPlanner", "seconds"] < 2:
        values["EndpointPlanner", "prompts"] = ""  # the timeline's second prompt would begin at the end
    return edited(workflow, values)


async def one(host: Host, workflow: Workflow, cancel_after: float | None, found: Found) -> None:
    """Queue it; interrupt it after so many seconds."""
    run = asyncio.create_task(Run(host.url, workflow, lambda _: None, 0.0).run())
    if cancel_after is not None:
        await asyncio.sleep(cancel_after)
        urllib.request.urlopen(urllib.request.Request(f"{host.url}/interrupt", b"")).close()
    try:
        await asyncio.wait_for(run, 120)
        found.done += 1
    except QueueError as fault:
        if cancel_after is None or "cancelled" not in str(fault):
            found.faults.append(str(fault)[:500])
        else:
            found.cancelled += 1


def soak(host: Host, runs: int, cancels: int, seed: int) -> Found:
    """All runs, and what is left after them."""
    rng, found = random.Random(seed), Found()
    cancelled, process = set(rng.sample(range(runs), cancels)), psutil.Process(host.process.pid)
    for number in range(runs):
        asyncio.run(one(host, mixed(rng), rng.uniform(0.1, 1.5) if number in cancelled else None, found))
        found.memory.append(process.memory_info().rss)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{number + 1} of {runs}, {found.memory[-1] / 1e6:.0f} MB")
    time.sleep(2)
    found.left = [*(f"process {child.pid}" for child in process.children(recursive=True)), *map(str, unfinished(host))]
    if not host.alive:
        found.faults.append("the host has ended")
    return found


def unfinished(host: Host) -> Iterator[Path]:
    """Files that a writer has left under a name for the time being."""
    for path in host.base.rglob("*"):
        if ".part" in path.name or path.suffix == ".tmp":
            yield path.relative_to(host.base)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--cancels", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "host") as host:
        found = soak(host, args.runs, args.cancels, args.seed)
    sys.stdout.write(f"{found}\n")
    return int(bool(found.faults or found.left) or found.growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
