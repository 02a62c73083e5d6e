"""The drift study's report: tables beside the paper's, intervals, plots, and what holds of the paper's findings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.frames import package
from .study_cases import cases
from .study_numbers import DRIFTS, PAPER, Result, Results, by_order, findings, less

GLOBAL = ("clarity", "smoothness", "dynamic", "identity", "shape")
SHOWN = ("clarity", "colour", "dynamic", "shape")  # in plots
GROUPS = {"orders": "Orders", "methods": "Other methods", "own": "This project's other options", "repair": "Repair"}


def write(folder: Path, target: Path) -> None:
    """Write the report of a study's results, and its plots beside it."""
    about = json.loads((folder / "about.json").read_text("utf-8"))
    paths = sorted(path for path in folder.glob("*.json") if path.name != "about.json")
    places = [case.name for case in cases(reduced=False)]
    found = sorted(map(Result.read, paths), key=lambda result: places.index(result.case["name"]))
    results = {result.case["name"]: result for result in found}
    parts = [
        _head(about, folder, results),
        *(_table(title, [r for r in found if r.case["group"] == group]) for group, title in GROUPS.items()),
        _pairs(results),
        _findings(results),
        _codebooks(results),
        _costs(found, results),
        _plots(results, target),
    ]
    target.write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")


def _head(about: dict[str, Any], folder: Path, results: Results) -> str:
    num = {len(result.clips) for result in results.values()}
    discrete = results.get("+d")
    command = "make drift-study" if about["clips"] >= 16 else f'make drift-study ARGS="--clips {about["clips"]}"'
    weights = (
        ""
        if discrete is None
        else (
            " `+d` ran on the weights that were trained with its codebook."
            if discrete.trained
            else " `+d` ran on weights that were **not** trained with a codebook."
        )
    )
    return (
        "# Drift study\n\n"
        f"Written by `{command}`: {about['seconds']:g} s videos of {min(num)} held-out scenes of the built-in world "
        f"for each case, {about['steps']} steps a section, weights {folder.name.partition('-')[0]}. Text guidance "
        f"{about['guidance']['cfg']:g} above a noise level of {about['guidance']['cfg_above']:g}, no history guidance "
        f"but in its own case.{weights} Causal history ran on weights that were trained with full attention. "
        "`docs/drift.md` describes the measures: BRISQUE for the paper's clarity (lower is better here), optical flow "
        "for motion and dynamic, SIFT for identity. They are not on the paper's scale. Start-end contrasts are over "
        "the first and the last 15 %. Brackets hold 95 % intervals from resampling the clips."
    )


def _table(title: str, found: Sequence[Result]) -> str:
    if not found:
        return ""
    head = ["case", *GLOBAL, *(f"d {name}" for name in ("clarity", "colour", "dynamic", "identity", "shape")), "paper"]
    rows = [
        [
            result.case["name"],
            *(f"{result.of(name, 'mean').mean:.3g}" for name in GLOBAL),
            *(str(result.of(name)) for name in ("clarity", "colour", "dynamic", "identity", "shape")),
            _paper(result.case["paper"]),
        ]
        for result in found
    ]
    note = "\n\nThe last column is the paper's: clarity, identity, and in brackets its drift of clarity and motion."
    return f"## {title}\n\n{_markdown(head, rows)}{note if title == GROUPS['orders'] else ''}"


def _paper(row: str) -> str:
    if row not in PAPER:
        return "-"
    clarity, _, _, identity, drift, motion = PAPER[row]
    return f"{clarity:g} %, {identity:g} % (d {drift:g}, {motion:g})"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pairs(results: Results) -> str:
    orders = by_order(results)
    if not all(orders.values()):
        return ""
    pairs = (("vanilla", "inverted"), ("vanilla", "endpoint"), ("endpoint", "inverted"))
    rows = [[name, *(str(less(orders[a], orders[b], name)) for a, b in pairs)] for name in DRIFTS]
    head = ["contrast of", *(f"{a} less {b}" for a, b in pairs)]
    signs = {name: less(orders["vanilla"], orders["inverted"], name).sign for name in DRIFTS}
    held = [name for name, sign in signs.items() if sign > 0]
    met = "clarity" in held and bool({"dynamic", "smoothness", "identity"} & set(held))
    verdict = (
        "Drift falls from vanilla to inverted on clarity and on a measure of motion or identity: the intervals "
        "exclude 0."
        if met
        else f"Drift falls from vanilla to inverted beyond the interval on: {', '.join(held) or 'no measure'}."
    )
    return f"## The orders, paired by clip\n\nAbove 0: the first drifts more. {verdict}\n\n{_markdown(head, rows)}"


def _findings(results: Results) -> str:
    if not all(by_order(results).values()):
        return ""
    rows = [[str(i), one.says, f"**{one.verdict}**", one.why] for i, one in enumerate(findings(results), 1)]
    head = ["", "the paper's discovery (4.4)", "here", "why"]
    return f"## The paper's five discoveries\n\n{_markdown(head, rows)}"


def _codebooks(results: Results) -> str:
    held = [result for result in results.values() if result.case["group"] == "codebooks"]
    held.sort(key=lambda result: result.case["centroids"])
    plain = results.get("vanilla f16")
    rows = [
        [
            str(result.case["centroids"]),
            f"{result.explained:.1%}",
            *(str(result.of(name)) for name in ("clarity", "colour", "dynamic")),
            f"{result.of('shape', 'mean').mean:.3g}",
        ]
        for result in held
    ]
    if plain:
        drifts = (str(plain.of(name)) for name in ("clarity", "colour", "dynamic"))
        rows.insert(0, ["none", "-", *drifts, f"{plain.of('shape', 'mean').mean:.3g}"])
    head = ["centroids", "variance explained", "d clarity", "d colour", "d dynamic", "shape"]
    note = "Vanilla order, full strength, weights that were not trained with a codebook."
    return f"## Codebook sizes\n\n{note}\n\n{_markdown(head, rows)}" if held else ""


def _costs(found: Sequence[Result], results: Results) -> str:
    base = results.get("vanilla f16")
    if base is None:
        return ""
    rows = [
        [r.case["name"], f"{r.section_seconds:.2f}", f"{r.section_seconds / base.section_seconds:.2f}"] for r in found
    ]
    note = "Processor seconds for nine latent frames of one clip, and against the vanilla order."
    return f"## Time\n\n{note}\n\n{_markdown(['case', 'seconds', 'against vanilla'], rows)}"


def _plots(results: Results, target: Path) -> str:
    package("matplotlib", "A plot")
    from matplotlib.figure import Figure

    lines = []
    for group in ("orders", "methods", "own"):
        held = [r for r in results.values() if r.case["group"] == group]
        if not held:
            continue
        figure = Figure(figsize=(9, 7), layout="constrained")
        for name, axes in zip(SHOWN, np.ravel(figure.subplots(2, 2)), strict=True):
            for result in held:
                curve = result.curve(name)
                known, places = ~np.isnan(curve), np.linspace(0, 1, len(curve))
                axes.plot(places[known], curve[known], linewidth=1.2, label=result.case["name"])
            axes.axvspan(0, 0.15, color="0.9", zorder=0)
            axes.axvspan(0.85, 1, color="0.9", zorder=0)
            axes.set_title(name, fontsize=9)
            axes.tick_params(labelsize=8)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        path = target.with_name(f"{target.stem}-{group}.png")
        figure.savefig(path, format="png", dpi=90)
        lines.append(f"![Measures over time, {GROUPS[group].lower()}]({path.name})")
    note = "Means over clips from the start to the end of the videos; both ends are shaded."
    return "\n\n".join(["## Over time", note, *lines]) if lines else ""
