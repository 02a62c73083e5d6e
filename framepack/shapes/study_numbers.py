"""The drift study's statistics: intervals over clips, paired differences, and what they say of the paper's findings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .study_cases import ORDERS

RESAMPLES = 4000
BETTER = {"clarity": -1, "smoothness": 1, "dynamic": 1, "identity": 1, "shape": 1}  # whether more is better
DRIFTS = ("clarity", "sharpness", "contrast", "colour", "dynamic", "smoothness", "identity", "shape")
# The paper's Tables 1 and 2, in percent: clarity, motion, dynamic, identity; drift of clarity and of motion.
PAPER = {
    "td_f16k4f2k2f1k1_g9": (67.15, 94.08, 92.97, 71.08, 3.18, 3.42),
    "td_f16k4f2k2f1k1_g9_x_f1k1": (69.51, 96.97, 77.41, 69.25, 2.72, 2.58),
    "f1k1_x_g9_f1k1f2k2f16k4_td": (70.73, 98.11, 88.76, 84.01, 2.35, 1.95),
    "td_f64k8f16k4f4k2f1k1_g9": (67.71, 95.09, 93.91, 71.50, 3.22, 3.38),
    "td_f64k8f16k4f4k2f1k1_g9_x_f1k1": (68.21, 95.74, 85.97, 76.29, 2.92, 2.98),
    "f1k1_x_g9_f1k1f4k2f16k4f64k8_td": (69.56, 97.42, 86.68, 78.06, 2.45, 2.25),
    "td_f16k4f2k2f1k1_g4": (66.57, 94.00, 82.85, 69.06, 3.36, 3.68),
    "td_f16k4f2k2f1k1_g4_x_f1k1": (69.92, 97.84, 71.90, 77.53, 2.75, 2.65),
    "f1k1_x_g4_f1k1f2k2f16k4_td": (70.28, 98.30, 79.45, 80.23, 2.45, 2.05),
    "Repeating image-to-video": (56.73, 94.34, 65.56, 73.06, 9.51, 3.92),
    "Anchor frames": (69.58, 99.96, 74.97, 79.52, 2.85, 2.15),
    "Causal attention": (62.88, 96.98, 67.56, 75.32, 7.45, 3.15),
    "Noisy history": (66.75, 97.20, 91.45, 77.60, 4.35, 2.05),
    "History guidance": (68.05, 97.01, 73.39, 83.42, 7.35, 2.21),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies wholly above or below 0, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(values: Sequence[float]) -> Interval:
    """Mean over clips, with a bootstrap interval; NaN where there is no value."""
    held = np.array([value for value in values if value is not None and np.isfinite(value)])
    if not len(held):
        return Interval(mean=np.nan, low=np.nan, high=np.nan)
    picks = np.random.default_rng(0).integers(len(held), size=(RESAMPLES, len(held)))
    low, high = np.quantile(held[picks].mean(1), (0.025, 0.975))
    return Interval(mean=float(held.mean()), low=float(low), high=float(high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One case's results: its description, and each clip's measures."""

    case: dict[str, Any]
    clips: dict[str, dict[str, dict[str, Any]]]
    section_seconds: float
    explained: float | None
    trained: bool

    @classmethod
    def read(cls, path: Path) -> Result:
        """From the file that the study wrote."""
        held = json.loads(path.read_text("utf-8"))
        return cls(**{name: held[name] for name in ("case", "clips", "section_seconds", "explained", "trained")})

    def values(self, name: str, what: str = "contrast") -> list[float]:
        """A measure of each clip, in order; NaN where it has none."""
        found = (self.clips[index][name][what] for index in sorted(self.clips, key=int))
        return [np.nan if value is None else value for value in found]

    def of(self, name: str, what: str = "contrast") -> Interval:
        """A measure over all clips."""
        return interval(self.values(name, what))

    def curve(self, name: str) -> np.ndarray:
        """The mean over clips of a measure over time."""
        curves = [[np.nan if v is None else v for v in clip[name]["curve"]] for clip in self.clips.values()]
        held = np.array(curves, float)
        known = ~np.isnan(held)
        total = np.where(known, held, 0).sum(0)
        return np.divide(total, known.sum(0), out=np.full(held.shape[1], np.nan), where=known.any(0))


Results = dict[str, Result]


def less(one: Iterable[Result], other: Iterable[Result], name: str, what: str = "contrast") -> Interval:
    """One less other of a measure, paired by clip and averaged over pairs of cases."""
    pairs = [np.subtract(a.values(name, what), b.values(name, what)) for a, b in zip(one, other, strict=True)]
    return interval(list(np.nanmean(np.array(pairs), 0)))


def by_order(results: Results) -> dict[str, list[Result]]:
    """The cases of each order, in the same order of schedules."""
    return {order: [result for name, result in results.items() if name.startswith(f"{order} ")] for order in ORDERS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One of the paper's discoveries (4.4): what it says, whether it holds here, and why."""

    says: str
    verdict: str
    why: str


HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided"


def findings(results: Results) -> list[Finding]:
    """The five discoveries."""
    orders = by_order(results)
    return [_best(orders), _least_drift(orders), _generate(results), _dynamic(orders), _small(orders)]


def _best(orders: dict[str, list[Result]]) -> Finding:
    wins, losses = [], []
    for name, sign in BETTER.items():
        gains = [less(orders["inverted"], orders[other], name, "mean").sign * sign for other in ("vanilla", "endpoint")]
        if min(gains) > 0:
            wins.append(name)
        elif min(gains) < 0:
            losses.append(name)
    num = len(BETTER)
    verdict = HOLDS if len(wins) > num / 2 else FAILS if len(losses) > num / 2 else OPEN
    why = (
        f"Inverted is better than both other orders beyond the interval in {len(wins)} of {num} measures "
        f"({', '.join(wins) or 'none'}), and worse than one of them in {len(losses)} ({', '.join(losses) or 'none'})."
    )
    return Finding(says="Inverted sampling is best in most of the global metrics.", verdict=verdict, why=why)


def _least_drift(orders: dict[str, list[Result]]) -> Finding:
    signs = {name: less(orders["vanilla"], orders["inverted"], name).sign for name in DRIFTS}
    lower, higher = ([n for n, sign in signs.items() if sign == wanted] for wanted in (1, -1))
    verdict = FAILS if higher else HOLDS if len(lower) == len(DRIFTS) else OPEN
    why = (
        f"Of {len(DRIFTS)} contrasts, inverted has a lower one than vanilla beyond the interval in {len(lower)} "
        f"({', '.join(lower) or 'none'}), a higher one in {len(higher)} ({', '.join(higher) or 'none'})."
    )
    return Finding(says="Inverted sampling drifts least in all drift metrics.", verdict=verdict, why=why)


def _generate(results: Results) -> Finding:
    nine = [r for n, r in results.items() if n in [f"{o} f16" for o in ORDERS]]
    four = [r for n, r in results.items() if n in [f"{o} f16 g4" for o in ORDERS]]
    says = "Nine frames a section look better to people than one or four."
    if len(four) != len(nine):
        return Finding(says=says, verdict=OPEN, why="The reduced form has no schedule with g4.")
    shape, smooth = less(nine, four, "shape", "mean"), less(nine, four, "smoothness", "mean")
    why = f"Nobody was asked. g9 less g4: shape kept {shape}, smoothness {smooth}, over the three orders."
    return Finding(says=says, verdict=OPEN, why=why)


def _dynamic(orders: dict[str, list[Result]]) -> Finding:
    more = less(orders["vanilla"], orders["inverted"], "dynamic", "mean")
    ends = ([r.values("dynamic", end) for r in orders["vanilla"]] for end in ("end", "start"))
    grown = interval(np.ravel(np.subtract(*ends)).tolist())
    verdict = HOLDS if more.sign > 0 and grown.sign > 0 else FAILS if more.sign < 0 else OPEN
    why = f"Dynamic, vanilla less inverted: {more}; vanilla's end less its start: {grown} (% of the diagonal a frame)."
    says = "Vanilla sampling has the highest dynamic score, likely because it drifts."
    return Finding(says=says, verdict=verdict, why=why)


def _small(orders: dict[str, list[Result]]) -> Finding:
    says = "Within one order of sampling, schedules differ little and at random; the order counts more."
    if any(len(held) < 2 for held in orders.values()):
        return Finding(says=says, verdict=OPEN, why="The reduced form has one schedule of each order.")
    smaller = []
    for name in DRIFTS:
        means = np.array([[r.of(name).mean for r in orders[order]] for order in ORDERS])
        if means.mean(1).std() > means.std(1).mean():
            smaller.append(name)
    share = len(smaller) / len(DRIFTS)
    verdict = HOLDS if share > 0.75 else FAILS if share < 0.25 else OPEN
    why = (
        f"The spread of orders is larger than the spread of schedules within an order in {len(smaller)} of "
        f"{len(DRIFTS)} contrasts ({', '.join(smaller) or 'none'})."
    )
    return Finding(says=says, verdict=verdict, why=why)
