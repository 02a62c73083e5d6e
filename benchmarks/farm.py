"""The farm against two bare processes and against its simulation: python -m benchmarks.farm [--steps N].

A plan with four gaps of the built-in model: on one worker, on two, and in two bare processes that sample it once each
at the same time; then what the simulation says of the same section times. Ratios are within one run, so that other
work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from framepack.farm.graph import Graph
from framepack.farm.simulation import Costs, simulate
from framepack.job_file import JobFile
from tests.framepack.farm.test_plan import ENVIRONMENT, REPO, bundle, command

from .timing import RESULTS, circumstances, ratio

BARE = """
import sys, time
from pathlib import Path
from framepack import pipeline
from framepack.job_file import JobFile
from framepack.job_run import JobRun, Place
job = JobFile.load(Path(sys.argv[1]))
run = JobRun.of(job, Place(threads=1))
print("ready", flush=True); sys.stdin.readline()
begun = time.monotonic()
pipeline.generate(job.plan, job.anchors(), run, run.settings, like=job.like)
print(time.monotonic() - begun, flush=True)
"""


def bare(job: Path, processes: int) -> float:
    """Seconds for a whole plan in each of so many processes at the same time, start-up excluded."""
    how: dict[str, Any] = {"env": ENVIRONMENT, "cwd": REPO, "text": True}
    started = [
        subprocess.Popen([sys.executable, "-c", BARE, str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how)
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in started)


def farm(job: Path, workers: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from the first section's start to the last one's end, and the sections."""
    with tempfile.TemporaryDirectory() as folder:
        out, store = Path(folder) / "out.latent", Path(folder) / "store"
        run = command("farm", "plan", job, "--json", "--workers", str(workers), "--out", out, "--store", store)
        done = subprocess.run(run, env=ENVIRONMENT, cwd=REPO, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    first = min(event["time"] for event in events if event["event"] == "start")
    sections = [event for event in events if event["event"] == "section"]
    return max(event["time"] for event in sections) - first, sections


def measure(steps: int, rounds: int) -> list[str]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        job = bundle(Path(folder) / "job.safetensors", steps)
        plan, runs = JobFile.load(job).plan, []
        for _ in range(rounds):
            one, together = bare(job, 1), bare(job, 2)
            (single, alone), (double, sections) = farm(job, 1), farm(job, 2)
            inside = sum(event["seconds"] for event in alone)
            seconds = {event["section"]: event["seconds"] for event in sections}
            graph = Graph.of(plan, [seconds[i] for i in range(len(plan.sections))])
            said = simulate([graph], 2, Costs(overhead=(single - inside) / len(alone))).seconds
            # Two processes each do the whole plan: what they reach together bounds two workers.
            runs.append((one, together, inside, single, double, said, max(graph.critical, together / 2)))
            sys.stderr.write(f"{[round(value, 3) for value in runs[-1]]}\n")
    names = ("one", "together", "inside", "single", "double", "said", "bound")
    times = dict(zip(names, map(list, zip(*runs, strict=True)), strict=True))
    one, together, inside, single, double = (median(times[name]) for name in names[:5])
    ideal, simulated = ratio(times, "bound", "double")[0], ratio(times, "said", "double")[0]
    return [
        f"| one bare process; two, the whole plan each, s | {one:.2f}; {together:.2f} |",
        f"| farm, one worker; two, s | {single:.2f}; {double:.2f} |",
        f"| a section on one worker, s | {inside / len(plan.sections):.2f} |",
        f"| one worker, over one bare process | {ratio(times, 'single', 'one')[0]:.3f} |",
        f"| one worker, over the time in its sections | {ratio(times, 'single', 'inside')[0]:.3f} |",
        f"| one worker, over two | {ratio(times, 'single', 'double')[0]:.2f} |",
        f"| two workers: bound by critical path and bare processes, over their time | {ideal:.2f} |",
        f"| two workers: simulated from the sections' times, over the real run | {simulated:.3f} |",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    lines = [
        circumstances(),
        "",
        f"Four gaps, 8 sections of {args.steps} steps, medians of {args.rounds} rounds and of their ratios.",
        "",
        "| what | measured |",
        "|---|---|",
    ]
    lines += measure(args.steps, args.rounds)
    (RESULTS / "farm.md").write_text("# The farm\n\n" + "\n".join(lines) + "\n", "utf-8")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
