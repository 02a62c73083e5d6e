"""The drift study: cases that can be planned, results that resume, and verdicts that follow from the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framepack.errors import FramePackError
from framepack.shapes import builtin
from framepack.shapes.study import NAMES, Study, run, run_case
from framepack.shapes.study_cases import ORDERS, Case, cases
from framepack.shapes.study_numbers import FAILS, HOLDS, OPEN, PAPER, Result, findings, interval, less
from framepack.shapes.study_report import write


def result(case: Case, drift: float, mean: float = 0.0, clips: int = 16) -> Result:
    """Made-up measures: every contrast about `drift`, every mean about `mean`, alike noise in each clip."""
    rng = np.random.default_rng(0)

    def clip() -> dict[str, Any]:
        noise = float(rng.normal(0, 0.1))
        values = {"mean": mean + noise, "start": 0.0, "end": drift + noise, "contrast": drift + noise}
        return {name: values | {"curve": [0.0, None, drift]} for name in NAMES}

    held = {str(i): clip() for i in range(clips)}
    about = {"name": case.name, "group": case.group, "paper": case.paper, "centroids": case.centroids}
    return Result(case=about, clips=held, section_seconds=1.0, explained=0.5, trained=False)


def orders(drifts: dict[str, float]) -> dict[str, Result]:
    return {c.name: result(c, drifts[c.name.split()[0]]) for c in cases(False) if c.group == "orders"}


def test_every_case_is_planned_and_has_its_row_in_the_paper():
    whole = cases(reduced=False)
    assert len({case.name for case in whole}) == len(whole)
    for case in whole:
        assert len(case.plan(91).sections) >= 9
        assert (case.paper in PAPER) == (case.group in ("orders", "methods"))
    assert {case.name for case in cases(reduced=True)} < {case.name for case in whole}


def test_an_interval_holds_the_mean_and_leaves_out_what_has_no_value():
    found = interval([1.0, 2.0, 3.0, float("nan")])
    assert found.low < found.mean == 2.0 < found.high
    assert found.sign == 1
    assert interval([-1.0, 1.0]).sign == 0


def test_paired_differences_are_sharper_than_the_clips_themselves():
    results = orders({"vanilla": 1.05, "endpoint": 1.0, "inverted": 1.0})
    found = less([results["vanilla f16"]], [results["inverted f16"]], "clarity")
    assert found.sign == 1
    assert found.mean == pytest.approx(0.05)


def test_the_second_discovery_follows_the_numbers():
    verdicts = [
        findings(orders(dict(zip(ORDERS, drifts, strict=True))))[1].verdict
        for drifts in ((3.0, 2.0, 1.0), (1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    ]
    assert verdicts == [HOLDS, FAILS, OPEN]


def test_the_report_states_every_case_and_finding(tmp_path: Path):
    folder = tmp_path / "abcdef-16-8-226"
    folder.mkdir()
    about = {"clips": 16, "steps": 8, "seconds": 30.0, "guidance": {"cfg": 3.0, "cfg_above": 0.9}}
    (folder / "about.json").write_text(json.dumps(about))
    for case in cases(False):
        made = result(case, 1.0)
        fields = {name: getattr(made, name) for name in ("case", "clips", "section_seconds", "explained", "trained")}
        (folder / f"{case.name.replace(' ', '-')}.json").write_text(json.dumps(fields))
    write(folder, tmp_path / "study.md")
    text = (tmp_path / "study.md").read_text()
    assert all(f"| {case.name} |" in text for case in cases(False) if case.group != "codebooks")
    assert all(f"| {size} |" in text for size in (32, 64, 128, 256, 512))
    assert text.count("**cannot be decided**") + text.count("**holds**") + text.count("**does not hold**") == 5
    assert "3.18, 3.42" in text
    assert (tmp_path / "study-orders.png").stat().st_size > 1000


def test_what_is_done_is_kept_and_only_the_rest_is_made(tmp_path: Path):
    case = next(case for case in cases(True) if case.name == "noisy")
    run_case(Study(out=tmp_path, clips=1, steps=1, num_lat_frames=10), case, tmp_path)
    (place,) = tmp_path.glob("*.json")
    held = json.loads(place.read_text())
    held["clips"]["0"]["shape"]["mean"] = 0.123
    held["section_seconds"] = 7.0
    place.write_text(json.dumps(held))
    run_case(Study(out=tmp_path, clips=2, steps=1, num_lat_frames=10), case, tmp_path)
    after = Result.read(place)
    assert after.values("shape", "mean")[0] == 0.123
    assert after.section_seconds == 7.0
    assert len(after.clips) == 2


def test_an_unknown_case_is_named(tmp_path: Path):
    with pytest.raises(FramePackError, match="sideways"):
        run(Study(out=tmp_path, clips=1, assets=builtin.ASSETS), 1, ["sideways"])
