"""A dry run of the checks for a GPU machine, at toy size on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu_check.__main__ import NAMES, run_all

SAME = {"released_24", "released_12"}  # as released_6
QUICK = ["parity", "gguf"]


@pytest.mark.parametrize(
    "names",
    [QUICK, pytest.param([name for name in NAMES if name not in {*SAME, *QUICK}], marks=pytest.mark.slow)],
    ids=["quick", "the rest"],
)
def test_the_parts_of_the_gpu_check_run_at_toy_size(names: list[str], tmp_path: Path):
    results = tmp_path / "gpu.md"
    assert run_all(names, True, results) == 0, results.read_text("utf-8")
    text = results.read_text("utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == names
    assert "Failed" not in text
    assert text.count("torch ") == len(names)
