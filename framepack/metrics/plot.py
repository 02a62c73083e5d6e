"""Curves over time, both ends shaded, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .drift import Report, ends
from .frames import package


def plot(reports: Sequence[Report], target: Path | Any) -> None:
    """Draw one row per measure and one line per video into a file (a path, or an open binary file)."""
    package("matplotlib", "A plot")
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    rows = [curve.measure for curve in reports[0].curves]
    figure = Figure(figsize=(9, 1.2 + 1.4 * len(rows)), layout="constrained")
    for row, (one, axes) in enumerate(zip(rows, np.atleast_1d(figure.subplots(len(rows), sharex=True)), strict=True)):
        for report in reports:
            _draw(axes, report, row)
        axes.set_ylabel(f"{one.name}\n{one.unit}", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.margins(x=0)
    axes.set_xlabel("seconds; shaded: the first and the last 15 %", fontsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", fontsize=8)
    figure.savefig(target, format="png", dpi=100)


def _draw(axes: Any, report: Report, row: int) -> None:
    curve = report.curves[row]
    seconds = np.arange(report.num_pix_frames) / report.fps
    known = ~np.isnan(curve.values)
    axes.plot(seconds[known], curve.values[known], linewidth=1.2, label=Path(report.name).name)
    edge = seconds[ends(report.num_pix_frames) - 1], seconds[-ends(report.num_pix_frames)]
    axes.axvspan(0, edge[0], color="0.9", zorder=0)
    axes.axvspan(edge[1], seconds[-1], color="0.9", zorder=0)
