"""``python -m framepack drift``: measure videos from the command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FramePackError, VideoError

if TYPE_CHECKING:
    from ..metrics.drift import Report

DEFAULT = "sharpness,brightness,contrast,saturation,colour,dynamic,smoothness,identity"


def add_drift(commands: Any) -> None:
    """Add the command to a parser's commands."""
    drift = commands.add_parser("drift", help="measure how far the end of a video is from its beginning")
    drift.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    drift.add_argument(
        "--measures", default=DEFAULT, metavar="A,B", help=f"any of {DEFAULT}, clarity (slow), cuts, shape"
    )
    drift.add_argument("--json", action="store_true", help="print JSON, with the values of every frame")
    drift.add_argument("--plot", type=Path, metavar="PNG", help="draw the measures over time into a new file")
    drift.set_defaults(run=_drift)


def _drift(arguments: argparse.Namespace) -> str:
    from ..metrics.drift import measure  # numpy is needed for this command alone
    from ..metrics.frames import open_clip
    from ..metrics.measures import MEASURES

    names = [name.strip() for name in arguments.measures.split(",")]
    known = dict(MEASURES)
    if "shape" in names:
        from ..shapes.measures import MEASURES as SHAPES  # torch

        known |= SHAPES
    clips = [open_clip(path) for path in arguments.videos]
    for clip in clips[1:]:
        if (clip.height, clip.width) != (clips[0].height, clips[0].width):
            raise VideoError(
                f"{clip.name} is {clip.width} x {clip.height} pixels and {clips[0].name} is {clips[0].width} x "
                f"{clips[0].height}. Scale them to one size to compare them, or measure each alone."
            )
    reports = [measure(clip, names, known) for clip in clips]
    if arguments.plot:
        _plot(reports, arguments.plot)
    if arguments.json:
        return json.dumps([report.to_dict() for report in reports])
    return "\n\n".join(map(table, reports))


def _plot(reports: list[Report], path: Path) -> None:
    from ..metrics.plot import plot

    try:
        with open(path, "xb") as file:
            plot(reports, file)
    except OSError as fault:
        raise FramePackError(
            f"The plot cannot be written to {path} ({fault}). Name a file that does not exist."
        ) from fault


def table(report: Report) -> str:
    """A report as lines of text: every measure's mean, both ends, and their contrast."""
    head = f"{report.name}: {report.num_pix_frames} frames, {report.width} x {report.height}, {report.fps:g} fps"
    rows = [f"{'measure':<12} {'mean':>9} {'start':>9} {'end':>9} {'contrast':>9}  unit"]
    rows += [
        f"{c.measure.name:<12} {c.mean:>9.3f} {c.start:>9.3f} {c.end:>9.3f} {c.contrast:>9.3f}  {c.measure.unit}"
        for c in report.curves
    ]
    if report.cuts is not None:
        rows.append(f"cuts         {', '.join(f'{frame / report.fps:.2f} s' for frame in report.cuts) or 'none'}")
    return "\n".join([head, *rows])
