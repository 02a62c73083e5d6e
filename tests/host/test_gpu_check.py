"""A dry run of the checks for a GPU machine: every part, at toy size on the CPU."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu_check.__main__ import NAMES, run_all

SAME = {"released_24", "released_12"}  # as released_6


def test_every_part_of_the_gpu_check_runs_at_toy_size(tmp_path: Path):
    names, results = [name for name in NAMES if name not in SAME], tmp_path / "gpu.md"
    assert run_all(names, True, results) == 0, results.read_text("utf-8")
    text = results.read_text("utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == names
    assert "Failed" not in text
    assert text.count("torch ") == len(names)
