"""``python -m framepack drift``: measure videos from the command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FramePackError, VideoError

if TYPE_CHECKING:
    from ..metrics.drift import Report


def add_drift(commands: Any) -> None:
    """Add the command to a parser's commands."""
    drift = commands.add_parser("drift", help="measure how far the end of a video is from its beginning")
    drift.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    drift.add_argument(
        "--measures",
        metavar="A,B",
        help="measures of docs/drift.md (all but clarity, cuts, shape)",
    )
    drift.add_argument("--json", action="store_true", help="print JSON, with the values of every frame")
    drift.add_argument("--plot", type=Path, metavar="PNG", help="draw the measures over time into a new file")
    drift.set_defaults(run=_drift)


def _drift(arguments: argparse.Namespace) -> str:
    from ..metrics.drift import measure  # numpy is needed for this command alone
    from ..metrics.frames import open_clip
    from ..metrics.measures import DEFAULT, MEASURES
    from ..metrics.tables import table

    names = [name.strip() for name in (arguments.measures or DEFAULT).split(",")]
    known = dict(MEASURES)
    if "shape" in names:
        from ..shapes.shape_measures import MEASURES as SHAPES  # torch

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
