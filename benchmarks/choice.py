"""What choosing history by likeness costs: its share of a section, and a section's time as the video grows.

python -m benchmarks.choice [--rounds N]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from framepack.packing.seeing import View
from framepack.packing.similarity import Chooser
from framepack.pipeline import Settings, SolverSampler
from framepack.planning.section import Section
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.shapes.generate import Builtin

from .timing import RESULTS, circumstances, ratio, rounds, shown

SHORT, LONG = 37, 901  # latent frames of 5 s and of 120 s
STEPS = 16  # as the shipped workflow has
SCHEDULES = ("td_f16k4f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2f16k4_td")


def last_of(schedule: str, num_lat_frames: int) -> Section:
    """The section that chooses among the most frames."""
    sections = make_plan(parse(schedule), num_lat_frames=num_lat_frames, importance="hybrid").sections
    return max((s for s in sections if s.choice), key=lambda s: len(s.choice.candidates) if s.choice else 0)


def timeline_of(section: Section) -> dict[int | str, torch.Tensor]:
    """Random latents of all that it may look at."""
    torch.manual_seed(0)
    return {frame: torch.randn(1, 16, 1, 8, 8) for frame in sorted(section.known)}


def sampled(model: Builtin, section: Section) -> Callable[[], object]:
    """The whole section by the engine: gathered, sampled by Euler, its history chosen by its own first steps."""
    timeline, like = timeline_of(section), torch.empty(1, 16, 1, 8, 8)
    sampler, settings = SolverSampler(denoiser=model.denoiser(["a red star moves up"], {})), Settings(steps=STEPS)

    def run() -> object:
        seen = View(timeline=timeline, like=like).seen(section)
        drawing = settings.drawing(sampler.solver, like, in_turn=False)
        return sampler.sample(settings.job(seen, 0, drawing), None)

    return run


def chosen(section: Section) -> Callable[[], object]:
    """The choice and the gathering of what it chose, once."""
    timeline, x0 = timeline_of(section), torch.randn(1, 16, 9, 8, 8)
    view, chooser = View(timeline=timeline, like=x0), Chooser.of(section, timeline)
    assert chooser is not None
    return lambda: view.history(chooser.chosen(x0))


def main() -> None:
    """Command line; prints and writes benchmarks/results/choice.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    args, model, rows = parser.parse_args(), Builtin.load(), []
    for schedule in SCHEDULES:
        long, short = last_of(schedule, LONG), last_of(schedule, SHORT)
        by_time = replace(short, choice=None)
        runs = {"long": sampled(model, long), "short": sampled(model, short), "by time": sampled(model, by_time)}
        runs |= {"choice": chosen(short), "choice of 120 s": chosen(long)}
        times = rounds(runs, args.rounds, clock=time.process_time)
        rows += [
            f"| `{schedule}`, choice / section at 5 s | 0.01 | {shown(ratio(times, 'choice', 'short'), 4)} |",
            f"| `{schedule}`, choice / section at 120 s | 0.01 | {shown(ratio(times, 'choice of 120 s', 'long'), 4)} |",
            f"| `{schedule}`, section at 120 s / at 5 s | 1.03 | {shown(ratio(times, 'long', 'short'), 3)} |",
            f"| `{schedule}`, section by hybrid / by time | - | {shown(ratio(times, 'short', 'by time'), 3)} |",
        ]
    head = (
        f"# Choosing history\n\n{circumstances()}. The built-in model, {STEPS} steps, one clip: the smallest model "
        "has the largest share. Processor time; medians of paired ratios, with quartiles.\n\n"
    )
    text = head + "| what | target | measured |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "choice.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    with torch.no_grad():
        main()
