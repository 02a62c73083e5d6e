"""Paired timing: every candidate once a round, in alternating order, and the median of the rounds' ratios."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from framepack.job_run import cpu_name

RESULTS = Path(__file__).parent / "results"


def rounds(
    candidates: Mapping[str, Callable[[], object]],
    num: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, by a clock: `time.process_time` leaves out what others ran meanwhile."""
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(num + warmup):
        for name in names if i % 2 else reversed(names):
            began = clock()
            candidates[name]()
            if i >= warmup:
                times[name].append(clock() - began)
    return times


def ratio(times: Mapping[str, list[float]], one: str, other: str) -> tuple[float, float, float]:
    """Median of the paired ratios one / other, and their quartiles."""
    values = [a / b for a, b in zip(times[one], times[other], strict=True)]
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return middle, low, high


def shown(values: tuple[float, float, float], digits: int = 2) -> str:
    """A ratio for a table."""
    middle, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"


def circumstances() -> str:
    """Hardware, versions and commit, for the head of a result."""
    cpu = cpu_name()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    if torch.cuda.is_available():
        cpu = f"{torch.cuda.get_device_name()}, {cpu}"
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, commit {commit or 'unknown'}"
