"""A report as text."""

from __future__ import annotations

from .drift import Report


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
